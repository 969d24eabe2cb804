/** An option of a command line. @throws where it is no whole number, or less than `least` */
export function wholeNumber(option: string, text: string, least = 1): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < least)
    throw new Error(`--${option} is a whole number, ${least} or more: not ${JSON.stringify(text)}`);
  return number;
}
