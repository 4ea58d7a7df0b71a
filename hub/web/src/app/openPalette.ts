/** Apart from the palette itself, which is fetched after the first page: opening it early opens it when it is there. */
import { spotlight } from "@mantine/spotlight";

export const openPalette = (): void => spotlight.open();
