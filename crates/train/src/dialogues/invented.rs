//! Words that nobody has seen: made of syllables, letters and digits.
//!
//! A model that has to copy these cannot do it from memory. They come in the forms that real names and codes
//! have: several words, hyphens, mixed case, digits, letters beyond ASCII.

use super::draw::Draw;

const ONSETS: [&str; 44] = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "ch",
    "cl", "dr", "fl", "gl", "gr", "kr", "pl", "pr", "qu", "sh", "sk", "sl", "sp", "st", "str", "th", "tr",
    "tw", "vl", "y", "x", "zh", "", "",
];
const VOWELS: [&str; 16] =
    ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou", "oo", "ie", "au", "y"];
const CODAS: [&str; 26] = [
    "", "", "", "", "", "n", "r", "s", "l", "t", "m", "k", "nd", "st", "rk", "x", "th", "ck", "lm", "ng",
    "rt", "sh", "p", "ss", "v", "d",
];
const ACCENTED: [char; 30] = [
    'á', 'à', 'ä', 'å', 'ã', 'é', 'è', 'ê', 'í', 'ï', 'ó', 'ö', 'ø', 'ô', 'ú', 'ü', 'ñ', 'ç', 'ß', 'ł', 'ń',
    'ś', 'ź', 'ř', 'š', 'ž', 'ğ', 'ı', 'ő', 'ų',
];
const HAN: [char; 24] = [
    '北', '京', '山', '海', '东', '西', '南', '天', '水', '火', '林', '木', '石', '金', '大', '小', '龙',
    '花', '月', '日', '中', '国', '安', '平',
];
const CYRILLIC: [&str; 14] =
    ["мо", "ск", "ва", "ле", "на", "до", "бр", "ки", "ро", "сто", "пе", "три", "гор", "ий"];
const GREEK: [&str; 10] = ["αθ", "ηνα", "λο", "γος", "μι", "κρο", "θεσ", "σα", "πα", "ρις"];

impl Draw<'_> {
    /// A lower-case word of one to four syllables.
    pub(crate) fn word(&mut self) -> String {
        let syllables = [1, 1, 2, 2, 2, 2, 2, 3][self.below(8)];
        let word: String = (0..syllables).map(|_| self.syllable()).collect();
        if word.len() < 3 { word + "en" } else { word }
    }

    fn syllable(&mut self) -> String {
        [*self.pick(&ONSETS), *self.pick(&VOWELS), *self.pick(&CODAS)].concat()
    }

    /// The beginning of a word and the end of another: spelled as words are, and no word.
    pub(crate) fn spliced(&mut self) -> String {
        let (beginning, end) = (self.listed(), self.listed());
        let cut = 1 + self.below(beginning.len().min(6));
        let kept = 1 + self.below(end.len().min(6));
        beginning
            .chars()
            .take(cut)
            .chain(end.chars().skip(end.chars().count().saturating_sub(kept)))
            .collect()
    }

    /// A lower-case word of a list.
    fn listed(&mut self) -> String {
        let lists = self.lists;
        let list = *self.pick(&[
            &lists.nouns,
            &lists.adjectives,
            &lists.verbs,
            &lists.cities,
            &lists.first_names,
            &lists.last_names,
            &lists.languages,
        ]);
        let words = self.pick(list).to_lowercase();
        let words: Vec<&str> = words.split([' ', '.', '-', '\'']).filter(|word| !word.is_empty()).collect();
        (*self.pick(&words)).to_owned()
    }

    /// A name: mostly one or two capitalised words, sometimes odder.
    pub(crate) fn name(&mut self) -> String {
        match self.weighted(&[46, 22, 8, 5, 4, 6, 3, 2, 4]) {
            0 => self.capitalized(),
            1 => format!("{} {}", self.capitalized(), self.capitalized()),
            2 => format!("{}-{}", self.capitalized(), self.capitalized()),
            3 => self.accented(),
            4 => format!("{} {} {}", self.capitalized(), self.word(), self.capitalized()),
            5 => self.capitalized() + &self.digits(1, 3),
            6 => self.foreign_script(),
            7 => self.word().to_uppercase(),
            _ => self.capitalized() + &self.capitalized(),
        }
    }

    /// A word with a capital.
    pub(crate) fn capitalized(&mut self) -> String {
        capitalize(&self.word())
    }

    fn accented(&mut self) -> String {
        let mut letters: Vec<char> = self.capitalized().chars().collect();
        let at = self.below(letters.len());
        letters[at] = *self.pick(&ACCENTED);
        letters.into_iter().collect()
    }

    fn foreign_script(&mut self) -> String {
        match self.below(3) {
            0 => (0..self.between(1, 3)).map(|_| *self.pick(&HAN)).collect(),
            1 => capitalize(&(0..self.between(2, 3)).map(|_| *self.pick(&CYRILLIC)).collect::<String>()),
            _ => capitalize(&(0..self.between(2, 3)).map(|_| *self.pick(&GREEK)).collect::<String>()),
        }
    }

    /// Digits; the first is not 0.
    pub(crate) fn digits(&mut self, least: i64, most: i64) -> String {
        let length = self.between(least, most);
        (0..length).map(|at| self.between(i64::from(at == 0), 9).to_string()).collect()
    }

    /// Upper-case letters.
    pub(crate) fn capitals(&mut self, least: i64, most: i64) -> String {
        (0..self.between(least, most)).map(|_| char::from(b'A' + self.below(26) as u8)).collect()
    }

    /// Letters and digits without order.
    pub(crate) fn scramble(&mut self, least: i64, most: i64) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        (0..self.between(least, most)).map(|_| char::from(*self.pick(LETTERS))).collect()
    }

    /// A code as on tickets, parcels and invoices.
    pub(crate) fn code(&mut self) -> String {
        match self.below(9) {
            0 => format!("{}-{}", self.capitals(1, 3), self.digits(2, 5)),
            1 => self.capitals(2, 4) + &self.digits(2, 5),
            2 => format!("{}-{}-{}", self.digits(2, 3), self.digits(2, 4), self.digits(1, 3)),
            3 => self.scramble(5, 9),
            4 => format!("{}-{}", self.word(), self.digits(1, 4)),
            5 => self.digits(5, 9),
            6 => format!("#{}", self.digits(2, 5)),
            7 => format!("{}_{}", self.word(), self.digits(1, 3)),
            _ => format!("{}{}{}", self.capitals(1, 1), self.digits(3, 6), self.capitals(1, 2)),
        }
    }
}

/// "a" or "an" before a vowel.
pub(crate) fn with_article(text: &str) -> String {
    let an = text.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {text}", if an { "an" } else { "a" })
}

/// With a capital first letter.
pub(crate) fn capitalize(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
