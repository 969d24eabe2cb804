/** Parses a command-line option. @throws if it is no whole number, or below `least` */
export function wholeNumber(option: string, text: string, least = 1): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < least)
    throw new Error(`--${option} must be a whole number of at least ${least}, not ${JSON.stringify(text)}`);
  return number;
}
