import { parseForm } from "../../../../services/api/http/form";

const parse = (text: string | Buffer) => parseForm(typeof text === "string" ? Buffer.from(text) : text);

it.each<[text: string, name: string, values: string[]]>([
  ["a=1&b=2", "b", ["2"]],
  ["a=1&a=2&a=", "a", ["1", "2", ""]],
  ["a", "a", [""]],
  ["a=b=c", "a", ["b=c"]],
  ["=x", "", ["x"]],
  ["&&a=1&", "a", ["1"]],
  ["a+b=c+d%20e%2Bf", "a b", ["c d e+f"]],
  ["%61=%C3%BC%F0%9F%91%8D", "a", ["ü👍"]],
  ["a=ü", "a", ["ü"]],
  ["constructor=1&__proto__=2", "__proto__", ["2"]],
  ["a=1", "constructor", []],
  ["", "", []],
])("in the form %j, %j has the values %j", (text, name, values) => {
  expect(parse(text).all(name)).toEqual(values);
});

it.each<[string, string | Buffer]>([
  ["an escape without digits", "a=%zz"],
  ["half an escape", "a=1%2"],
  ["an escape that is not UTF-8", "%ff=1"],
  ["bytes that are not UTF-8", Buffer.from([0x61, 0x3d, 0xff])],
  ["1,001 parameters", "a&".repeat(1_000)],
])("a form with %s can't be read", (_what, text) => {
  let error: unknown;
  try {
    parse(text);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({ type: "BAD_REQUEST" });
});

it("a form may have 1,000 parameters", () => {
  expect(parse("a=1&".repeat(999)).all("a")).toHaveLength(999);
});
