-- The order in which people expect a list of names: by their words, whatever their case, accents and punctuation. lower() and the order of
-- text depend on the database's locale, and a server may lack ICU. So everything here uses the collation "C", which folds only A to Z:
-- hence the list of letters.
--
-- 1. NFKD separates letters from their accents, and replaces variants of characters by the usual ones: ﬁ, ² and Ａ by fi, 2 and A.
-- 2. Capital letters become small, in Latin, Greek and Cyrillic. Letters that NFKD does not decompose become those beside which others
--    look for them: ø o, ł l, є е.
-- 3. Accents are removed, except from й, a letter of its own after и. So are apostrophes: "men's" is one word.
-- 4. Blanks, punctuation, symbols and emoji between words become one space; around a name they do not count, so "* SALE" is not at the top.
--
-- A name without any letter or digit has an empty key and comes first. Digits are compared one by one: 10 comes before 2. Scripts follow
-- each other by code point: Latin, Greek, Cyrillic, …, Chinese. Names with equal keys are sorted by their bytes.
--
-- Names in ASCII, the usual ones, need little of this. The function is not strict, so that the planner can replace calls by this
-- expression, which saves their cost. One character may decompose into 18, an index entry has at most 2,704 bytes, and each letter is looked
-- up in the list: hence left().
--
-- Indexes contain its results: never change it, but write a function with another name. It may exist already, created by the operator of a
-- large catalogue: docs/operations.md, "To 0.3.0".
create or replace function name_sort_key(text) returns text
  language sql immutable parallel safe
  return left(btrim(regexp_replace(
    case
      when octet_length($1) = char_length($1) then replace(lower($1 collate "C"), '''', '')
      else regexp_replace(regexp_replace(
        replace(replace(replace(replace(
          translate(lower(left(normalize(replace($1, '™', ''), nfkd), 200) collate "C"),
            'ÆŒÞẞƁɓÐðĐđƊɗƎǝƏəƐɛĦħıƘƙŁłŊŋØøƆɔŦŧƳƴ'
            'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣςΤΥΦΧΨΩ'
            'АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ'
            'ӘәҐґҒғЂђЄєҖҗЅѕҘҙІіЈјҚқҠҡЉљЊњҢңӨөҪҫЋћҰұҮүҺһҲҳЏџҶҷ',
            'æœþßbbddddddeeeeeehhikkllnnoooottyy'
            'αβγδεζηθικλμνξοπρσστυφχψω'
            'абвгдежзиклмнопрстуфхцчшщъыьэюя'
            'ааггггддеежжззззииииккккллннннооссттууууххххчччч'),
          'æ', 'ae'), 'œ', 'oe'), 'þ', 'th'), 'ß', 'ss'),
        'и\u0306', 'й', 'g'), '[\u0027\u00ad\u00b7\u02bc\u0300-\u036f\u200b-\u200f\u2019\u3099\u309a]+', '', 'g')
    end,
    '[\u0001-\u002f\u003a-\u0060\u007b-\u00bf\u00d7\u00f7\u2000-\u2bff\u3000-\u3004\u3008-\u3020\ufe00-\ufe0f\U0001f000-\U0001faff]+', ' ', 'g')), 200);
