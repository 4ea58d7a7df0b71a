import { Button, Modal, NativeSelect, Popover, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { complain } from "../../app/deeds";
import { endDeal, startDeal, useDealing } from "../../app/dealing";
import { dealsOf, organizationQuery, pipelinesQuery } from "../../api/lists";
import { type Conversation, deal } from "../../api/models";
import { insert } from "../../api/rest";
import { amountOf } from "../../lib/amount";
import { contactName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import css from "./ContactPanel.module.css";
import { defaultPipeline, stagesOf } from "./stages";

/** A deal with this customer that remembers where it came from. Ready to be made as it stands. */
function DealForm({ conversation }: { conversation: Conversation }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const name = useLive((live) => contactName(live.inbox.contacts.get(conversation.contact_id), ""));
  const me = useLive((live) => live.session?.user_id);
  const { data: pipelines, isPending } = useQuery(pipelinesQuery);
  const { data: organizations } = useQuery(organizationQuery);
  const pipeline = defaultPipeline(pipelines ?? []);
  const stages = stagesOf(pipeline);
  const currency = organizations?.[0]?.currency ?? null;
  const [title, setTitle] = useState(name);
  const [value, setValue] = useState("");
  const [stage, setStage] = useState<string | null>(null);
  const [tried, setTried] = useState(false);
  const amount = amountOf(value);
  const titleWrong = title.trim() === "";
  const valueWrong = amount === undefined;

  const making = useMutation({
    mutationFn: () =>
      insert("deals", deal, {
        title: title.trim(),
        contact_id: conversation.contact_id,
        conversation_id: conversation.id,
        ...(pipeline ? { pipeline_id: pipeline.id } : {}),
        ...(stages[0] ? { stage: stage ?? stages[0].id } : {}),
        ...(typeof amount === "number" ? { value: amount, ...(currency ? { currency } : {}) } : {}),
        ...(me ? { owner_id: me } : {}),
      }),
    onSuccess: (made) => {
      endDeal();
      notifications.show({
        message: t("deal.made", { title: made.title }),
        color: "pine",
        autoClose: 4_000,
        closeButtonProps: { "aria-label": t("common.dismiss") },
      });
      void client.invalidateQueries({ queryKey: dealsOf(conversation.contact_id).queryKey });
    },
    onError: (error) => complain(error),
  });

  return (
    <form
      className={css.dealForm}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (!titleWrong && !valueWrong && !isPending && !making.isPending) making.mutate();
      }}
    >
      <TextInput
        label={t("deal.title")}
        size="sm"
        dir="auto"
        data-autofocus
        required
        withAsterisk={false}
        maxLength={200}
        value={title}
        error={tried && titleWrong ? t("deal.titleNeeded") : null}
        onFocus={(event) => event.currentTarget.select()}
        onChange={(event) => setTitle(event.currentTarget.value)}
      />
      <div className={css.dealPair}>
        <TextInput
          label={t("deal.value")}
          size="sm"
          inputMode="decimal"
          autoComplete="off"
          value={value}
          error={tried && valueWrong ? t("deal.valueWrong") : null}
          rightSection={currency ? <span className={css.currency}>{currency}</span> : null}
          rightSectionWidth={48}
          rightSectionPointerEvents="none"
          onChange={(event) => setValue(event.currentTarget.value)}
        />
        {stages.length > 0 && (
          <NativeSelect
            label={t("deal.stage")}
            size="sm"
            value={stage ?? stages[0]?.id ?? ""}
            data={stages.map((one) => ({ value: one.id, label: one.name }))}
            onChange={(event) => setStage(event.currentTarget.value)}
          />
        )}
      </div>
      <div className={css.dealButtons}>
        <Button variant="default" size="compact-md" onClick={endDeal}>
          {t("common.cancel")}
        </Button>
        <Button type="submit" size="compact-md" loading={making.isPending}>
          {t("deal.make")}
        </Button>
      </div>
    </form>
  );
}

/** The button in the panel, with the form under it. */
export function NewDeal({ conversation }: { conversation: Conversation }) {
  const { t } = useTranslation();
  const opened = useDealing((now) => now.conversationId === conversation.id);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    // A key or the palette may have opened it while the panel was scrolled elsewhere.
    if (opened) button.current?.scrollIntoView({ block: "nearest" });
  }, [opened]);
  return (
    <Popover
      opened={opened}
      onChange={(open) => (open ? startDeal(conversation.id) : endDeal())}
      position="bottom-end"
      width={290}
      trapFocus
      returnFocus
      transitionProps={{ duration: 90 }}
    >
      <Popover.Target>
        <button
          ref={button}
          type="button"
          className={css.addTag}
          onClick={() => (opened ? endDeal() : startDeal(conversation.id))}
        >
          <Plus size={13} aria-hidden /> {t("deal.new")}
        </button>
      </Popover.Target>
      <Popover.Dropdown aria-label={t("deal.new")}>
        <DealForm conversation={conversation} />
      </Popover.Dropdown>
    </Popover>
  );
}

/** The same where the panel is not in sight. */
export function NewDealDialog({ conversation }: { conversation: Conversation }) {
  const { t } = useTranslation();
  const opened = useDealing((now) => now.conversationId === conversation.id);
  return (
    <Modal
      opened={opened}
      onClose={endDeal}
      title={t("deal.new")}
      size="sm"
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      <DealForm conversation={conversation} />
    </Modal>
  );
}
