import { Menu } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Building2, Check } from "lucide-react";
import { useTranslation } from "react-i18next";
import { organizationQuery } from "../api/lists";
import { enterOrganization, organizationsQuery } from "../api/organizations";
import "../i18n/people";
import { complain } from "./deeds";

/** The organizations of whoever is in several, in the account's menu. */
export function OrganizationItems() {
  const { t } = useTranslation("people");
  const { data: mine } = useQuery(organizationsQuery);
  const { data: here } = useQuery(organizationQuery);
  if (!mine || mine.length < 2) return null;
  return (
    <>
      <Menu.Divider />
      <Menu.Label>{t("org.switch")}</Menu.Label>
      {mine.map(({ id, name }) =>
        id === here?.[0]?.id ? (
          <Menu.Item key={id} leftSection={<Check size={16} aria-hidden />} aria-current="true" closeMenuOnClick>
            <bdi>{name}</bdi>
          </Menu.Item>
        ) : (
          <Menu.Item
            key={id}
            leftSection={<Building2 size={16} aria-hidden />}
            onClick={() => {
              enterOrganization(id).then(
                () => location.assign("/inbox"),
                (error: unknown) => complain(error),
              );
            }}
          >
            <bdi>{name}</bdi>
          </Menu.Item>
        ),
      )}
    </>
  );
}
