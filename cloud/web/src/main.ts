/** Start of the page: shows the view that the address names. */

import { Connection } from "./connection.ts";
import { FleetView } from "./fleet_view.ts";
import { PackView } from "./pack_view.ts";
import type { View } from "./view.ts";
import "./style.css";

const main = document.querySelector<HTMLElement>("#main")!;
const connection = new Connection(document.querySelector("#link")!);
let view: View | null = null;

/** The pack named by `#/pack/ID`; null = all packs. */
function packOfAddress(): string | null {
  const match = /^#\/pack\/(.+)$/.exec(window.location.hash);
  try {
    return match ? decodeURIComponent(match[1]!) : null;
  } catch {
    return match![1]!; // not an encoded name: shown as it stands, no pack is called so
  }
}

function route(): void {
  const packId = packOfAddress();
  view?.close();
  view = packId === null ? new FleetView(connection) : new PackView(packId, connection);
  document.title = `${view.title} · packtwin`;
  main.replaceChildren(view.root);
  connection.show(null);
  window.scrollTo({ top: 0 });
}

document.querySelector(".skip")!.addEventListener("click", (event) => {
  event.preventDefault(); // the address after # names the view
  main.focus();
});
window.addEventListener("hashchange", route);
route();
