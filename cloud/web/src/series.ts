/** Values over time for the charts: in order, no time twice, and a hole where nothing was measured. */

export type Aligned = [t_s: number[], ...columns: (number | null)[][]];

export class Series {
  readonly #t_s: number[] = [];
  readonly #columns: (number | null)[][];

  constructor(columns: number) {
    this.#columns = Array.from({ length: columns }, () => []);
  }

  get last_s(): number | null {
    return this.#t_s.at(-1) ?? null;
  }

  /** Adds one instant; the same instant again replaces it, an earlier one (backlog) goes to its place. */
  add(t_s: number, values: readonly (number | null)[]): void {
    let index = this.#t_s.length;
    while (index > 0 && this.#t_s[index - 1]! >= t_s) index -= 1;
    const replaced = this.#t_s[index] === t_s ? 1 : 0;
    this.#t_s.splice(index, replaced, t_s);
    this.#columns.forEach((column, which) => column.splice(index, replaced, values[which] ?? null));
  }

  /** Forgets what is older than `first_s`. */
  trim(first_s: number): void {
    const keep = this.#t_s.findIndex((t_s) => t_s >= first_s);
    const drop = keep < 0 ? this.#t_s.length : keep;
    if (!drop) return;
    this.#t_s.splice(0, drop);
    for (const column of this.#columns) column.splice(0, drop);
  }

  /** Times and columns as uPlot takes them; a pause longer than `gap_s` becomes a row of nulls: no line bridges it. */
  aligned(gap_s: number): Aligned {
    const out: Aligned = [[], ...this.#columns.map(() => [] as (number | null)[])];
    const [times, ...columns] = out;
    this.#t_s.forEach((t_s, index) => {
      const before_s = this.#t_s[index - 1];
      if (before_s !== undefined && t_s - before_s > gap_s) {
        times.push((t_s + before_s) / 2);
        for (const column of columns) column.push(null);
      }
      times.push(t_s);
      columns.forEach((column, which) => column.push(this.#columns[which]![index]!));
    });
    return out;
  }
}
