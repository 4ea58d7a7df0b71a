/** The conversation that the address names. */
import { useRouterState } from "@tanstack/react-router";
import type { Conversation } from "../api/models";
import { useLive } from "../realtime/live";

export function useOpenId(): string | null {
  return useRouterState({
    select: (state) => {
      const found = /^\/inbox\/([^/]+)/.exec(state.location.pathname)?.[1];
      return found ? decodeURIComponent(found) : null;
    },
  });
}

export function useOpenConversation(): Conversation | null {
  const id = useOpenId();
  return useLive((live) => (id ? (live.inbox.conversations.get(id) ?? null) : null));
}
