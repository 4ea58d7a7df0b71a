import { AtSign, BellRing, Camera, Mail, MessageCircle, MessageSquareText, Music2, Send, Smartphone } from "lucide-react";
import css from "./ChannelIcon.module.css";

const icons: Record<string, typeof Mail> = {
  WHATSAPP_LITE: MessageCircle,
  WHATSAPP_CLOUD: MessageCircle,
  WHATSAPP_BUSINESS: MessageCircle,
  FB_MESSENGER: MessageSquareText,
  INSTAGRAM: Camera,
  TELEGRAM: Send,
  TIKTOK: Music2,
  EMAIL: Mail,
  SMS: Smartphone,
  SHRINKIT_PUSH: BellRing,
};

/** The channel by sign and colour; its name is said where the icon is used. */
export function ChannelIcon({ type, size = 12 }: { type: string | undefined; size?: number }) {
  const Icon = (type && icons[type]) || AtSign;
  return (
    <span className={css.icon} data-type={type} aria-hidden>
      <Icon size={size} strokeWidth={2.4} />
    </span>
  );
}
