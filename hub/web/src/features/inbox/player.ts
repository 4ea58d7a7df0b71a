/** One sound at a time, also while its bubble is scrolled out of sight. */
import { create } from "zustand";
import { blobs } from "../../api/blobs";

interface Playing {
  fileId: string | null;
  /** wanted: plays as soon as its bytes are here. broken: this browser cannot play it. */
  state: "stopped" | "wanted" | "playing" | "paused" | "broken";
  at: number;
  /** Seconds; null while unknown. */
  length: number | null;
  rate: number;
}

const still: Playing = { fileId: null, state: "stopped", at: 0, length: null, rate: 1 };
export const usePlayer = create<Playing>()(() => still);

const RATES = [1, 1.5, 2];

let sound: HTMLAudioElement | null = null;
let release: (() => void) | null = null;
let unlisten: (() => void) | null = null;

const set = (change: Partial<Playing>): void => usePlayer.setState(change);

function element(): HTMLAudioElement {
  if (sound) return sound;
  const made = new Audio();
  made.addEventListener("timeupdate", () => set({ at: made.currentTime }));
  made.addEventListener("durationchange", () => {
    // Recordings that were never finished tell no length.
    set({ length: Number.isFinite(made.duration) ? made.duration : null });
  });
  made.addEventListener("play", () => set({ state: "playing" }));
  made.addEventListener("pause", () => {
    if (usePlayer.getState().state === "playing") set({ state: "paused" });
  });
  made.addEventListener("ended", () => set({ state: "paused", at: 0 }));
  made.addEventListener("error", () => {
    if (made.src !== "" && usePlayer.getState().fileId !== null) set({ state: "broken" });
  });
  sound = made;
  return made;
}

function begin(fileId: string): void {
  const look = blobs.look(fileId);
  if (look.state === "failed") set({ state: "stopped" });
  if (look.state !== "ready") return;
  unlisten?.();
  unlisten = null;
  const player = element();
  player.src = look.url;
  player.playbackRate = usePlayer.getState().rate;
  player.play().catch(() => {
    // Not allowed without a gesture, or not playable; the latter has told so by itself.
    if (usePlayer.getState().state === "wanted") set({ state: "paused" });
  });
}

export function stopSound(): void {
  unlisten?.();
  release?.();
  unlisten = release = null;
  sound?.pause();
  sound?.removeAttribute("src");
  set({ ...still, rate: usePlayer.getState().rate });
}

export function toggleSound(fileId: string): void {
  const now = usePlayer.getState();
  if (now.fileId === fileId && now.state === "playing") {
    sound?.pause();
    return;
  }
  if (now.fileId === fileId && now.state === "paused" && sound?.src) {
    if (sound.ended) sound.currentTime = 0;
    void sound.play().catch(() => set({ state: "broken" }));
    return;
  }
  stopSound();
  set({ fileId, state: "wanted", at: 0, length: null });
  unlisten = blobs.listen(fileId, () => begin(fileId));
  release = blobs.want(fileId);
  begin(fileId);
}

/** To a moment of what plays; seconds. */
export function seekSound(to: number): void {
  if (sound) sound.currentTime = to;
  set({ at: to });
}

export function nextRate(): void {
  const { rate } = usePlayer.getState();
  const next = RATES[(RATES.indexOf(rate) + 1) % RATES.length] ?? 1;
  if (sound) sound.playbackRate = next;
  set({ rate: next });
}
