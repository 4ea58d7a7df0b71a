import { ActionIcon, Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Check, X } from "lucide-react";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { configQuery } from "../../api/lists";
import { cx } from "../../ui/cx";
import css from "./WelcomeCard.module.css";
import { dismissSteps, useSteps } from "./steps";

/** Three steps that a newcomer of the demo can do at once; gone when they are done, or when told to go. */
export function WelcomeCard() {
  const { t } = useTranslation();
  const { data: config } = useQuery(configQuery);
  const steps = useSteps();
  const all = steps.wrote && steps.answered && steps.built;
  const [lingering, setLingering] = useState(false);

  useEffect(() => {
    if (!all || steps.dismissed) return undefined;
    // Long enough to see the third tick.
    setLingering(true);
    const timer = setTimeout(dismissSteps, 4_000);
    return () => clearTimeout(timer);
  }, [all, steps.dismissed]);

  const phone = config?.demo?.phone_url;
  if (!phone || steps.dismissed || (all && !lingering)) return null;
  // Only the step that is next explains itself; three explanations would hide the list.
  const next = !steps.wrote ? 1 : !steps.answered ? 2 : 3;
  const done = [steps.wrote, steps.answered, steps.built].filter(Boolean).length;

  return (
    <aside className={css.card} aria-label={t("welcome.title")}>
      <header className={css.head}>
        <h2>{t("welcome.title")}</h2>
        <span className={css.progress}>{t("welcome.progress", { done, total: 3 })}</span>
        <ActionIcon size={26} aria-label={t("welcome.dismiss")} onClick={dismissSteps}>
          <X size={14} />
        </ActionIcon>
      </header>
      <ol className={css.steps}>
        <Step number={1} next={next} done={steps.wrote} title={t("welcome.write")} hint={t("welcome.writeHint")}>
          <Button component="a" href={phone} target="_blank" rel="noopener noreferrer" size="compact-sm">
            {t("welcome.writeAction")}
          </Button>
        </Step>
        <Step number={2} next={next} done={steps.answered} title={t("welcome.answer")} hint={t("welcome.answerHint")} />
        <Step number={3} next={next} done={steps.built} title={t("welcome.build")} hint={t("welcome.buildHint")}>
          <Button component={Link} to="/settings/api" size="compact-sm" variant="default">
            {t("welcome.buildAction")}
          </Button>
        </Step>
      </ol>
    </aside>
  );
}

interface StepProps {
  number: number;
  next: number;
  done: boolean;
  title: string;
  hint: string;
  children?: React.ReactNode;
}

function Step({ number, next, done, title, hint, children }: StepProps) {
  const { t } = useTranslation();
  return (
    <li className={cx(css.step, done && css.done)}>
      <span className={css.mark} aria-hidden>
        {done ? <Check size={13} strokeWidth={3} /> : number}
      </span>
      <div className={css.text}>
        <p className={css.title}>
          {title} {done && <span className="sr-only">({t("welcome.done")})</span>}
        </p>
        {!done && number === next && <p className={css.hint}>{hint}</p>}
        {!done && number === next && children}
      </div>
    </li>
  );
}
