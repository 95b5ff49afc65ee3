/** A screen of the page: its element, its title, and how to let go of timers and streams. */
export interface View {
  readonly root: HTMLElement;
  readonly title: string;
  close(): void;
}
