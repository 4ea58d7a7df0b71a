/** Choose an approved template, fill in its variables, see what the customer will read, send it. */
import { ActionIcon, Button, Modal, Skeleton, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { ArrowLeft, LayoutTemplate, Search, SendHorizontal } from "lucide-react";
import { Fragment, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { templatesQuery } from "../../api/lists";
import type { Conversation, Template } from "../../api/models";
import "../../i18n/inbox";
import { compose } from "../../realtime/live";
import { EmptyState } from "../../ui/EmptyState";
import { cx } from "../../ui/cx";
import css from "./TemplatePicker.module.css";
import { fill, firstValues, search, textOf, usable, variablesOf } from "./templates";

export interface TemplatePickerProps {
  conversation: Conversation;
  /** What is known of the customer, by name. */
  known: ReadonlyMap<string, string>;
  seenSeq: number | null;
  onClose: () => void;
}

export default function TemplatePicker({ conversation, known, seenSeq, onClose }: TemplatePickerProps) {
  const { t } = useTranslation("inbox");
  const { t: common } = useTranslation();
  const { data, isPending, isError, error } = useQuery(templatesQuery);
  const [words, setWords] = useState("");
  const [chosenId, setChosenId] = useState<string | null>(null);
  const all = useMemo(() => usable(data ?? [], conversation.channel_account_id), [data, conversation.channel_account_id]);
  const found = useMemo(() => search(all, words), [all, words]);
  const chosen = all.find((one) => one.id === chosenId);

  return (
    <Modal
      opened
      onClose={onClose}
      title={t("template.title")}
      size={720}
      closeButtonProps={{ "aria-label": common("common.close") }}
      classNames={{ body: css.body }}
    >
      {isPending ? (
        <div className={css.skeletons} aria-hidden>
          <Skeleton height={44} />
          <Skeleton height={44} />
          <Skeleton height={44} />
        </div>
      ) : isError ? (
        <EmptyState icon={<LayoutTemplate size={24} />} title={t("template.unread")} hint={error.message} />
      ) : all.length === 0 ? (
        <EmptyState icon={<LayoutTemplate size={24} />} title={t("template.none")} hint={t("template.noneHint")} />
      ) : (
        <div className={cx(css.split, chosen && css.one)}>
          <div className={css.choice}>
            <TextInput
              data-autofocus
              value={words}
              onChange={(event) => setWords(event.currentTarget.value)}
              placeholder={t("template.search")}
              aria-label={t("template.search")}
              leftSection={<Search size={16} aria-hidden />}
              dir="auto"
              variant="filled"
            />
            {found.length === 0 ? (
              <p className={css.nothing}>{t("template.nothing", { words })}</p>
            ) : (
              <ul className={css.list} aria-label={t("template.title")}>
                {found.map((one) => (
                  <li key={one.id}>
                    <button
                      type="button"
                      className={css.item}
                      aria-pressed={one.id === chosenId}
                      onClick={() => setChosenId(one.id)}
                      data-testid="template"
                    >
                      <span className={css.itemHead}>
                        <bdi className={css.itemName}>{one.name.replaceAll("_", " ")}</bdi>
                        {one.language && <span className={css.language}>{one.language}</span>}
                      </span>
                      <span className={css.itemText} dir="auto">
                        {textOf(one).body}
                      </span>
                    </button>
                  </li>
                ))}
              </ul>
            )}
          </div>
          {chosen ? (
            <Filling
              key={chosen.id}
              template={chosen}
              known={known}
              onBack={() => setChosenId(null)}
              onSend={(content, variables) => {
                compose(conversation.id, content, null, seenSeq, { template: { id: chosen.id, variables } });
                onClose();
              }}
            />
          ) : (
            <div className={css.hint}>
              <EmptyState icon={<LayoutTemplate size={24} />} title={t("template.pick")} hint={t("template.pickHint")} />
            </div>
          )}
        </div>
      )}
    </Modal>
  );
}

interface FillingProps {
  template: Template;
  known: ReadonlyMap<string, string>;
  onBack: () => void;
  onSend: (content: string, variables: Record<string, string>) => void;
}

function Filling({ template, known, onBack, onSend }: FillingProps) {
  const { t } = useTranslation("inbox");
  const variables = useMemo(() => variablesOf(template), [template]);
  const [values, setValues] = useState(() => firstValues(variables, known));
  const said = textOf(template);
  const missing = variables.filter((one) => !values[one.name]?.trim());
  return (
    <form
      className={css.filling}
      onSubmit={(event) => {
        event.preventDefault();
        if (missing.length > 0) return;
        const clean = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.trim()]));
        onSend(fill(said.body, clean), clean);
      }}
    >
      <div className={css.chosen}>
        <ActionIcon className={css.back} size={34} aria-label={t("template.back")} onClick={onBack}>
          <ArrowLeft size={18} className="mirrored" />
        </ActionIcon>
        <bdi className={css.chosenName}>{template.name.replaceAll("_", " ")}</bdi>
      </div>
      <div className={css.fields}>
        {variables.map((one, index) => (
          <TextInput
            key={one.name}
            label={/^\d+$/.test(one.name) ? t("template.position", { number: one.name }) : one.name.replaceAll("_", " ")}
            placeholder={one.example === "" ? undefined : t("template.example", { text: one.example })}
            value={values[one.name] ?? ""}
            maxLength={500}
            dir="auto"
            required
            withAsterisk={false}
            autoFocus={index === 0}
            onChange={(event) => {
              const { value } = event.currentTarget;
              setValues((old) => ({ ...old, [one.name]: value }));
            }}
          />
        ))}
      </div>
      <div className={css.preview} aria-label={t("template.preview")} role="group" data-testid="template-preview">
        {said.header !== "" && (
          <p className={css.previewHead} dir="auto">
            <Filled words={said.header} values={values} />
          </p>
        )}
        <p className={css.previewBody} dir="auto">
          <Filled words={said.body} values={values} />
        </p>
        {said.footer !== "" && (
          <p className={css.previewFoot} dir="auto">
            {said.footer}
          </p>
        )}
        {said.buttons.map((one) => (
          <span key={one} className={css.previewButton}>
            <bdi>{one}</bdi>
          </span>
        ))}
      </div>
      <Button
        type="submit"
        className={css.send}
        disabled={missing.length > 0}
        rightSection={<SendHorizontal size={16} className="mirrored" />}
      >
        {t("template.send")}
      </Button>
    </form>
  );
}

/** The words with what was filled in set off from what stands in the template, and what is missing set off most. */
function Filled({ words, values }: { words: string; values: Readonly<Record<string, string>> }) {
  return words.split(/(\{\{\s*[\p{L}\p{N}_]+\s*\}\})/u).map((part, index) => {
    const name = /^\{\{\s*([\p{L}\p{N}_]+)\s*\}\}$/u.exec(part)?.[1];
    const value = name === undefined ? undefined : values[name]?.trim();
    return (
      // The parts of a template keep their order.
      // oxlint-disable-next-line react/no-array-index-key
      <Fragment key={index}>
        {name === undefined ? part : <bdi className={value ? css.given : css.missing}>{value || `{{${name}}}`}</bdi>}
      </Fragment>
    );
  });
}
