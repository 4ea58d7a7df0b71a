/** Files on their way up. Each goes up once, whoever shows it: the tray before its message is sent, the bubble after. */
import { create } from "zustand";
import { ApiError } from "../api/http";
import { safeType, uploadMedia } from "../api/media";
import { blobs } from "../api/blobs";
import { useSession } from "../api/session";
import { reconnectDelay } from "../lib/backoff";
import { newId } from "../lib/ids";
import { forgetFile, forgetOldFiles, keepFile, keptFile } from "../lib/fileStore";
import { awaitsFile } from "./outbox";
import { uploadSettled, useLive } from "./live";

export type Upload =
  /** Its turn has not come, or the hub is away. */
  | { state: "waiting" }
  /** Between 0 and 1. */
  | { state: "sending"; part: number }
  | { state: "done"; mediaId: string }
  | { state: "failed"; code: string; text: string };

export const useUploads = create<{ byKey: ReadonlyMap<string, Upload> }>()(() => ({ byKey: new Map() }));

const AT_ONCE = 2;
const KEPT_MS = 7 * 24 * 3_600_000;
/** The file is not in this browser any more. */
export const FILE_LOST = "FILE_LOST";

interface Job {
  key: string;
  name: string;
  blob: Blob;
  at: number;
  attempts: number;
  /** Of the upload that its tries belong to. */
  run: string;
  stop: AbortController | null;
  timer: ReturnType<typeof setTimeout> | undefined;
}

const jobs = new Map<string, Job>();
const addresses = new Map<string, string>();

function newJob(key: string, name: string, blob: Blob, at = Date.now()): Job {
  const job: Job = { key, name, blob, at, attempts: 0, run: key, stop: null, timer: undefined };
  jobs.set(key, job);
  return job;
}

const keep = (job: Job, mediaId: string | null): void =>
  void keepFile({ key: job.key, user: user(), blob: job.blob, name: job.name, mediaId, at: job.at });

function show(key: string, upload: Upload | null): void {
  const byKey = new Map(useUploads.getState().byKey);
  if (upload) byKey.set(key, upload);
  else byKey.delete(key);
  useUploads.setState({ byKey });
}

const stateOf = (key: string): Upload | undefined => useUploads.getState().byKey.get(key);

function user(): string {
  const session = useSession.getState();
  return session.status === "signed-in" ? session.userId : "";
}

/** A file that somebody picked: kept, and sent up at once. */
export function addFile(key: string, file: File): void {
  keep(newJob(key, file.name, file), null);
  show(key, { state: "waiting" });
  next();
}

/** Goes on with a file of an earlier visit. */
export async function ensureUpload(key: string): Promise<void> {
  if (stateOf(key)) return;
  show(key, { state: "waiting" });
  if (jobs.has(key)) {
    // It was held, and fits now.
    next();
    return;
  }
  const kept = await keptFile(key);
  // Dropped meanwhile.
  if (!stateOf(key)) return;
  if (!kept || kept.user !== user()) {
    show(key, { state: "failed", code: FILE_LOST, text: "" });
    uploadSettled(key, { code: FILE_LOST, text: "" });
    return;
  }
  newJob(key, kept.name, kept.blob, kept.at);
  if (kept.mediaId !== null) finish(key, kept.mediaId);
  else next();
}

/** After sign-in: what the outbox still waits for. */
export function resumeUploads(userId: string): void {
  if (user() !== userId) return;
  for (const one of useLive.getState().outbox) if (one.attachment) void ensureUpload(one.attachment.key);
  void forgetOldFiles(Date.now() - KEPT_MS);
}

/** Once more, also one that the hub had and gave up. */
export function uploadAgain(key: string): void {
  const job = jobs.get(key);
  const known = stateOf(key);
  if (!job) {
    show(key, null);
    void ensureUpload(key);
  } else if (known?.state === "failed" || known?.state === "done") {
    job.attempts = 0;
    // The hub would answer the former one with the file that it gave up.
    job.run = newId();
    keep(job, null);
    show(key, { state: "waiting" });
    next();
  }
}

/** Nobody needs it any more: its way up ends here. */
export function dropFile(key: string): void {
  const job = jobs.get(key);
  jobs.delete(key);
  clearTimeout(job?.timer);
  job?.stop?.abort();
  const address = addresses.get(key);
  if (address !== undefined) URL.revokeObjectURL(address);
  addresses.delete(key);
  show(key, null);
  void forgetFile(key);
  next();
}

/** An address to show the file under; null while it is not known here. */
export function addressOf(key: string): string | null {
  const known = addresses.get(key);
  if (known !== undefined) return known;
  const job = jobs.get(key);
  if (!job) return null;
  const address = URL.createObjectURL(job.blob);
  addresses.set(key, address);
  return address;
}

function finish(key: string, mediaId: string): void {
  const job = jobs.get(key);
  show(key, { state: "done", mediaId });
  if (job) {
    keep(job, mediaId);
    blobs.seed(mediaId, new Blob([job.blob], { type: safeType(job.blob.type) }));
  }
  uploadSettled(key, { mediaId });
}

/** Those whose messages are sent already go first. */
function next(): void {
  const wanted = new Set(useLive.getState().outbox.filter(awaitsFile).map((one) => one.attachment?.key));
  const ready = [...jobs.values()].filter(
    (job) => job.stop === null && job.timer === undefined && stateOf(job.key)?.state === "waiting",
  );
  ready.sort((a, b) => Number(wanted.has(b.key)) - Number(wanted.has(a.key)));
  let running = [...jobs.values()].filter((job) => job.stop !== null).length;
  for (const job of ready) {
    if (running >= AT_ONCE) return;
    running += 1;
    void send(job);
  }
}

async function send(job: Job): Promise<void> {
  const stop = new AbortController();
  job.stop = stop;
  const over = (): boolean => stop.signal.aborted || jobs.get(job.key) !== job;
  show(job.key, { state: "sending", part: 0 });
  try {
    const media = await uploadMedia(
      job.blob, job.name, job.run,
      (part) => {
        if (!over()) show(job.key, { state: "sending", part });
      },
      stop.signal,
    );
    if (!over()) finish(job.key, media.id);
  } catch (error) {
    if (over()) return;
    const known = error instanceof ApiError ? error : new ApiError(0, "NETWORK", String(error));
    if (known.transient) {
      show(job.key, { state: "waiting" });
      job.timer = setTimeout(() => wake(job), reconnectDelay(job.attempts));
      job.attempts += 1;
    } else {
      show(job.key, { state: "failed", code: known.code, text: known.message });
      uploadSettled(job.key, { code: known.code, text: known.message });
    }
  } finally {
    if (job.stop === stop) job.stop = null;
    next();
  }
}

function wake(job: Job): void {
  clearTimeout(job.timer);
  job.timer = undefined;
  next();
}

/** The hub is back: nobody waits for the rest of a pause. */
useLive.subscribe((live, before) => {
  if (live.phase.name !== "live" || before.phase.name === "live") return;
  for (const job of jobs.values()) if (job.timer !== undefined) wake(job);
});

/** A file that cannot go up as it is: kept, so that it can be made to fit. */
export function holdFile(key: string, file: File): void {
  keep(newJob(key, file.name, file), null);
}

export async function fileOf(key: string): Promise<File | null> {
  const found = jobs.get(key) ?? (await keptFile(key));
  return found && new File([found.blob], found.name, { type: found.blob.type });
}
