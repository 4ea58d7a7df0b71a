/** The conversation for which the template picker is open. */
import { create } from "zustand";

export const usePicker = create<{ conversationId: string | null }>()(() => ({ conversationId: null }));
export const openPicker = (conversationId: string): void => usePicker.setState({ conversationId });
export const closePicker = (): void => usePicker.setState({ conversationId: null });
