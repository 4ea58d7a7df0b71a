import { Notifications } from "@mantine/notifications";

/** Where short notices appear. Loaded after the first page: what is said before waits in its store. */
export default function Toasts() {
  return <Notifications position="top-center" limit={4} />;
}
