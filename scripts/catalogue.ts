import type { Params } from "../contracts/contract";
import type { create } from "../contracts/products";

/** Part of every demo product's description; the search for it finds them. */
export const MARK = "From the demo catalogue";

const GOODS: Readonly<Record<string, readonly (readonly [name: string, price: number])[]>> = {
  lighting: [["Desk lamp", 49.9], ["Floor lamp", 129], ["Reading light", 24.5], ["String of lights", 14.95], ["Torch", 19.99]], // prettier-ignore
  kitchen: [["Cast-iron pan", 59.9], ["Chef's knife", 79], ["Tea kettle", 34.5], ["Cutting board", 22], ["Coffee grinder", 89.95]], // prettier-ignore
  office: [["Notebook", 7.5], ["Fountain pen", 39.9], ["Swivel chair", 249], ["Standing desk", 499], ["Paper tray", 12.8]], // prettier-ignore
  outdoors: [["Two-person tent", 189], ["Sleeping bag", 119.5], ["Hiking poles", 64.9], ["Rain jacket", 139], ["Water bottle", 17.9]], // prettier-ignore
  music: [["Ukulele", 69], ["Headphones", 159.9], ["Metronome", 29.95], ["Music stand", 32.5], ["Record player", 229]], // prettier-ignore
  toys: [["Wooden train", 44.9], ["Building blocks", 29.9], ["Chess set", 54], ["Kite", 21.5], ["Jigsaw puzzle", 16.95]], // prettier-ignore
};
const FINISHES = ["oak", "walnut", "brass", "linen", "slate", "copper", "birch", "cork", "indigo", "olive", "rust", "sand"];

const BASE = Object.entries(GOODS).flatMap(([category, goods]) => goods.map(([name, price]) => ({ category, name, price })));

/** The nth product, counted from 0; always the same for the same n. Every tenth is sold out. After 30, finishes vary and prices rise. */
export function demoProduct(n: number): Params<typeof create> & { sku: string } {
  const base = BASE[n % BASE.length] ?? { category: "other", name: "Product", price: 1 };
  const edition = Math.floor(n / BASE.length);
  const finish = edition === 0 ? undefined : FINISHES[(edition - 1) % FINISHES.length];
  const series = Math.floor((edition - 1) / FINISHES.length) + 1;
  const name = finish === undefined ? base.name : `${base.name}, ${finish}${series > 1 ? ` ${series}` : ""}`;
  return {
    name,
    category: base.category,
    price: Math.round(base.price * (100 + (edition % 50))) / 100,
    quantity: n % 10 === 9 ? 0 : 5 + ((n * 37) % 120),
    sku: `DEMO-${String(n + 1).padStart(6, "0")}`,
    description: `${MARK}: ${name.toLowerCase()}.`,
  };
}
