import { Kbd, Modal } from "@mantine/core";
import { useTranslation } from "react-i18next";
import css from "./ShortcutSheet.module.css";

const isApple = /Mac|iPhone|iPad/.test(navigator.userAgent);
const mod = isApple ? "⌘" : "Ctrl";

export function ShortcutTable() {
  const { t } = useTranslation();
  const lines: [string, string[][]][] = [
    [t("shortcuts.next"), [["J"], ["Alt", "J"]]],
    [t("shortcuts.previous"), [["K"], ["Alt", "K"]]],
    [t("shortcuts.close"), [["E"], ["Alt", "E"]]],
    [t("shortcuts.assign"), [["A"]]],
    [t("deal.new"), [["D"]]],
    [t("shortcuts.pick"), [["X"]]],
    [t("shortcuts.reply"), [["R"], ["Alt", "L"]]],
    [t("shortcuts.palette"), [[mod, "K"]]],
    [t("shortcuts.help"), [["?"]]],
    [t("shortcuts.send"), [["Enter"]]],
    [t("shortcuts.newline"), [["Shift", "Enter"]]],
    [t("shortcuts.quick"), [["/"], ["Alt", "/"]]],
    [t("shortcuts.leave"), [["Esc"]]],
  ];
  return (
    <dl className={css.table}>
      {lines.map(([label, ways]) => (
        <div key={label} className={css.line}>
          <dt>{label}</dt>
          <dd dir="ltr">
            {ways.map((keys, index) => (
              <span key={keys.join("+")}>
                {index > 0 && <span className={css.or}>{t("shortcuts.or")}</span>}
                {keys.map((key) => (
                  <Kbd key={key}>{key}</Kbd>
                ))}
              </span>
            ))}
          </dd>
        </div>
      ))}
    </dl>
  );
}

export function ShortcutSheet({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const { t } = useTranslation();
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title={t("shortcuts.title")}
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      <ShortcutTable />
      <p className={css.note}>{t("shortcuts.intro")}</p>
    </Modal>
  );
}
