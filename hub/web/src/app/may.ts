/** What the signed-in person may do; the hub decides anyway, this only keeps away what it would refuse. */
import { useLive } from "../realtime/live";

export function useMay(permission: "can_access_crm" | "can_send_messages"): boolean {
  return useLive(
    ({ session }) => session === null || session.role === "OWNER" || session.permissions.includes(permission),
  );
}
