import { ProfilePage } from "./ProfilePage";

/** On a wide screen the list of pages stands beside the first one; on a narrow one it is the page. */
export function SettingsHome() {
  return <ProfilePage />;
}
