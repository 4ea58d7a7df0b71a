/** The conversation whose new deal is being written. Here, because the contact panel, a key and the palette open it. */
import { create } from "zustand";

export const useDealing = create<{ conversationId: string | null }>()(() => ({ conversationId: null }));

export const startDeal = (conversationId: string): void => useDealing.setState({ conversationId });
export const endDeal = (): void => useDealing.setState({ conversationId: null });
