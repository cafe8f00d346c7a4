//! What the user says for a parameter, and the argument that follows from it.
//!
//! Arguments are copied: the letters of what was said, without prepositions, quotes or the blanks of an
//! expression. Numbers become numbers. Nothing is computed, translated or looked up on the way.

use serde::Deserialize;

use super::draw::Draw;
use super::invented::capitalize;

/// So many values of words out of a hundred are of spliced ones. A list of twenty dishes is learned by heart, and
/// then the four that are held out are not copied.
const SPLICED: usize = 20;

/// What kind of value a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // named by what they are
pub enum ValueType {
    City,
    TemperatureUnit,
    Day,
    Expression,
    Quantity,
    FromUnit,
    ToUnit,
    FromCurrency,
    ToCurrency,
    Task,
    When,
    Duration,
    SmallNumber,
    Title,
    ClockTime,
    Quotable,
    Language,
    Query,
    Recipient,
    Body,
    Person,
    Word,
    TinyNumber,
    Sides,
    Room,
    OnOff,
    OnOffBoolean,
    FromPlace,
    ToPlace,
    Flight,
    LowNumber,
    HighNumber,
    Item,
    Date,
    Dish,
    Path,
    OtherPath,
    Url,
    Priority,
    Address,
    Symbol,
    Code,
    Name,
    Place,
    Identifier,
    Street,
}

impl ValueType {
    /// The fixed choices of an enumeration.
    pub fn choices(self) -> Option<&'static [&'static str]> {
        match self {
            Self::TemperatureUnit => Some(&["celsius", "fahrenheit"]),
            Self::OnOff => Some(&["on", "off"]),
            Self::Priority => Some(&["low", "medium", "high"]),
            _ => None,
        }
    }

    /// True for numbers without a fraction.
    pub fn is_integer(self) -> bool {
        use ValueType::{HighNumber, LowNumber, Sides, SmallNumber, TinyNumber};
        matches!(self, SmallNumber | TinyNumber | Sides | LowNumber | HighNumber)
    }

    /// True for any number.
    pub fn is_number(self) -> bool {
        self.is_integer() || self == Self::Quantity
    }

    /// True if some values of this type are kept out of training. The small sets are seen whole; of units
    /// it is the pairs that are held out.
    pub fn has_held_out_values(self) -> bool {
        use ValueType as T;
        let small = matches!(
            self,
            T::Day
                | T::Room
                | T::ClockTime
                | T::Language
                | T::OnOffBoolean
                | T::FromUnit
                | T::ToUnit
                | T::FromCurrency
        );
        !small && !self.is_integer() && self.choices().is_none()
    }

    /// True if nothing marks the end of the value but the end of the sentence.
    pub fn is_free_text(self) -> bool {
        use ValueType::{Body, Dish, Item, Query, Quotable, Task, Title};
        matches!(self, Task | Body | Query | Quotable | Title | Item | Dish)
    }

    /// True if it is words that begin with capitals.
    fn is_proper_name(self) -> bool {
        use ValueType::{City, FromPlace, Name, Person, Place, Recipient, ToPlace};
        matches!(self, City | FromPlace | ToPlace | Person | Recipient | Place | Name)
    }
}

/// An argument, before it is known how the schema wants it.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Letters, copied.
    Text(String),
    /// A number as JSON writes it.
    Number(String),
    /// One of an enumeration's choices, in its own letters.
    Choice(String),
    /// Yes or no.
    Boolean(bool),
}

impl Argument {
    /// The argument as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) | Self::Choice(text) => text,
            Self::Boolean(true) => "true",
            Self::Boolean(false) => "false",
        }
    }
}

/// A value in a sentence and in a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// In the user's words.
    pub said: String,
    /// In the call.
    pub argument: Argument,
}

impl Value {
    /// Said as it is copied.
    pub(crate) fn text(text: String) -> Value {
        Value { said: text.clone(), argument: Argument::Text(text) }
    }

    /// Said with a word before it that is not copied.
    fn after(before: &str, text: String) -> Value {
        Value { said: format!("{before}{text}"), argument: Argument::Text(text) }
    }

    fn number(said: String, number: String) -> Value {
        Value { said, argument: Argument::Number(number) }
    }

    fn choice(choice: &str) -> Value {
        Value { said: choice.to_owned(), argument: Argument::Choice(choice.to_owned()) }
    }
}

impl Draw<'_> {
    /// A value of this type; `earlier` are the values that the same request has already.
    pub(crate) fn value(&mut self, kind: ValueType, earlier: &[(ValueType, Value)]) -> Value {
        let of = |wanted: ValueType| earlier.iter().rev().find(|(kind, _)| *kind == wanted);
        match kind {
            ValueType::ToUnit => self.other_unit(of(ValueType::FromUnit), earlier),
            ValueType::HighNumber => self.high_number(of(ValueType::LowNumber)),
            kind if !kind.has_held_out_values() => self.new_value(kind, earlier),
            kind => {
                self.in_part(|value: &Value| value.argument.as_str(), |draw| draw.new_value(kind, earlier))
            }
        }
    }

    /// A value that has not been said yet.
    fn new_value(&mut self, kind: ValueType, earlier: &[(ValueType, Value)]) -> Value {
        loop {
            let value = self.any_value(kind);
            // Two rooms differ, but there are only two switches.
            let few = kind.choices().is_some() || kind == ValueType::OnOffBoolean || kind == ValueType::Sides;
            if few || earlier.iter().all(|(_, other)| !other.said.eq_ignore_ascii_case(&value.said)) {
                return value;
            }
        }
    }

    fn any_value(&mut self, kind: ValueType) -> Value {
        use ValueType as T;
        let lists = self.lists;
        let of_words = kind.is_free_text() || kind.is_proper_name() || kind == T::Word;
        if of_words && self.scope.spliced && self.percent(SPLICED) {
            return Value::text(self.spliced_words(kind));
        }
        match kind {
            T::City | T::FromPlace | T::ToPlace => Value::text(self.city()),
            T::Place | T::Name | T::Street => Value::text(self.business_or_place(kind)),
            T::Day => self.day(),
            T::When => self.when(),
            T::ClockTime => Value::text(self.clock_time()),
            T::Date => Value::text(self.date()),
            T::Expression => self.expression(),
            T::Quantity => self.quantity(),
            T::FromUnit => Value::text(self.unit()),
            T::FromCurrency | T::ToCurrency => Value::text(self.currency()),
            T::Task => Value::text(self.task()),
            T::Duration => Value::text(self.duration()),
            T::SmallNumber => self.small_number(5, 120),
            T::TinyNumber => self.small_number(2, 12),
            T::LowNumber => self.small_number(1, 50),
            T::Sides => {
                let sides = *self.pick(&[4, 6, 8, 10, 12, 20, 100]);
                self.small_number(sides, sides)
            }
            T::Title => Value::text(self.made_of(&lists.titles)),
            T::Quotable => Value::text(self.made_of(&lists.quotables)),
            T::Query => Value::text(self.made_of(&lists.queries)),
            T::Body => Value::text(self.made_of(&lists.bodies)),
            T::Dish => Value::text(self.made_of(&lists.dishes)),
            T::Language => Value::text(self.pick(&lists.languages).clone()),
            T::Recipient => Value::text(if self.percent(40) { self.address() } else { self.person() }),
            T::Person => Value::text(self.person()),
            T::Word => Value::text(if self.percent(60) { self.word() } else { self.plain_word() }),
            T::Room => Value::text(self.pick(&lists.rooms).clone()),
            T::OnOffBoolean => self.on_off(),
            T::Item => Value::text(if self.percent(65) {
                self.pick(&lists.items).clone()
            } else {
                self.word() + "s"
            }),
            T::Flight => Value::text(self.flight()),
            T::Path | T::OtherPath => Value::text(self.path()),
            T::Url => Value::text(self.url()),
            T::Address => Value::text(self.address()),
            T::Symbol => Value::text(if self.percent(60) { self.capitals(2, 5) } else { self.name() }),
            T::Code => Value::text(self.code()),
            T::Identifier => Value::text(self.identifier()),
            T::TemperatureUnit | T::OnOff | T::Priority | T::ToUnit | T::HighNumber => {
                Value::choice(self.choose(kind.choices().unwrap_or(&["other"])))
            }
        }
    }

    /// One word or a few, as long as values of this type are.
    fn spliced_words(&mut self, kind: ValueType) -> String {
        use ValueType::{Body, Query, Quotable, Task, Title};
        let most = if matches!(kind, Body | Query | Quotable | Task | Title) { 5 } else { 3 };
        let count = [1, 1, 2, 2, 3, most][self.below(6)];
        let word = |draw: &mut Self, at: i64| match draw.below(10) {
            0..=5 => draw.spliced(),
            6 if 0 < at && at + 1 < count => {
                draw.choose(&["of", "the", "and", "with", "in", "for"]).to_owned()
            }
            _ => draw.plain_word(),
        };
        let words: Vec<String> = (0..count).map(|at| word(self, at)).collect();
        match kind.is_proper_name() || self.percent(10) {
            true => words.iter().map(|word| capitalize(word)).collect::<Vec<_>>().join(" "),
            false => words.join(" "),
        }
    }

    /// A city of the world, or one that is not.
    pub(crate) fn city(&mut self) -> String {
        let lists = self.lists;
        if self.percent(60) { self.pick(&lists.cities).clone() } else { self.name() }
    }

    fn business_or_place(&mut self, kind: ValueType) -> String {
        let lists = self.lists;
        match kind {
            ValueType::Street => format!(
                "{} {}",
                self.capitalized(),
                self.choose(&["Street", "Road", "Avenue", "Lane", "Square"])
            ),
            ValueType::Name if self.percent(50) => {
                format!("{} {}", self.capitalized(), self.pick(&lists.name_endings))
            }
            _ => self.name(),
        }
    }

    /// Somebody.
    pub(crate) fn person(&mut self) -> String {
        let lists = self.lists;
        match self.below(10) {
            0..=2 => self.pick(&lists.first_names).clone(),
            3..=5 => format!("{} {}", self.pick(&lists.first_names), self.pick(&lists.last_names)),
            6..=7 => self.capitalized(),
            8 => format!("{} {}", self.pick(&lists.first_names), self.capitalized()),
            _ => self.name(),
        }
    }

    /// A pattern of the lists with its words in capitals replaced.
    pub(crate) fn made_of(&mut self, patterns: &[String]) -> String {
        let pattern = self.pick(patterns).clone();
        let replaced: Vec<String> = pattern.split(' ').map(|word| self.replaced(word)).collect();
        replaced.join(" ")
    }

    fn replaced(&mut self, word: &str) -> String {
        let lists = self.lists;
        let (name, tail) = word.split_at(word.find(':').unwrap_or(word.len()));
        let new = match name {
            "NOUN" => self.pick(&lists.nouns).clone(),
            "ADJECTIVE" => self.pick(&lists.adjectives).clone(),
            "PERSON" => self.person(),
            "CITY" => self.city(),
            "NUMBER" => self.digits(1, 4),
            "DAY" => self.pick(&lists.weekdays).clone(),
            "CLOCK" => self.clock_time(),
            "WORD" => self.word(),
            _ => name.to_owned(),
        };
        new + tail
    }

    fn task(&mut self) -> String {
        let lists = self.lists;
        match self.below(4) {
            0 => format!("call {}", self.person()),
            1 => format!(
                "{} the {} {}",
                self.pick(&lists.verbs),
                self.pick(&lists.adjectives),
                self.pick(&lists.nouns)
            ),
            2 => format!("{} the {}", self.pick(&lists.verbs), self.word()),
            _ => format!("{} the {}", self.pick(&lists.verbs), self.pick(&lists.nouns)),
        }
    }

    /// A noun or an adjective.
    pub(crate) fn plain_word(&mut self) -> String {
        let lists = self.lists;
        if self.percent(70) { self.pick(&lists.nouns).clone() } else { self.pick(&lists.adjectives).clone() }
    }

    fn day(&mut self) -> Value {
        let lists = self.lists;
        match self.below(6) {
            0 => Value::text(self.choose(&["today", "tomorrow", "the day after tomorrow"]).to_owned()),
            1 | 2 => Value::after("on ", self.pick(&lists.weekdays).clone()),
            3 => Value::text(format!("next {}", self.pick(&lists.weekdays))),
            _ => Value::after("on ", self.date()),
        }
    }

    fn when(&mut self) -> Value {
        let lists = self.lists;
        match self.below(8) {
            0..=2 => Value::after("at ", self.clock_time()),
            3 => Value::text("tomorrow".to_owned()),
            4 => Value::text(format!("tomorrow at {}", self.clock_time())),
            5 => Value::after("on ", self.pick(&lists.weekdays).clone()),
            6 => Value::after("on ", format!("{} at {}", self.pick(&lists.weekdays), self.clock_time())),
            _ => Value::text(format!("in {}", self.duration())),
        }
    }

    /// A time of day.
    pub(crate) fn clock_time(&mut self) -> String {
        let (hour, minute) = (self.between(1, 12), self.between(0, 59));
        match self.below(10) {
            0..=4 => format!("{}:{minute:02}", self.between(0, 23)),
            5 => format!("{hour} {}", self.choose(&["am", "pm"])),
            6 => format!("{hour}:{minute:02} {}", self.choose(&["am", "pm", "AM", "PM"])),
            7 => format!("{hour}{}", self.choose(&["am", "pm"])),
            8 => format!("{:02}:{minute:02}", self.between(0, 23)),
            _ => self.choose(&["noon", "midnight", "half past six", "ten o'clock"]).to_owned(),
        }
    }

    /// A date.
    pub(crate) fn date(&mut self) -> String {
        let lists = self.lists;
        let (day, month, year) = (self.between(1, 28), self.between(1, 12), self.between(1800, 2150));
        match self.below(5) {
            0 | 1 => format!("{year}-{month:02}-{day:02}"),
            2 => format!("{} {day}", self.pick(&lists.months)),
            3 => format!("{} {day}, {year}", self.pick(&lists.months)),
            _ => format!("{day} {} {year}", self.pick(&lists.months)),
        }
    }

    fn duration(&mut self) -> String {
        let count = self.between(2, 90);
        match self.below(6) {
            0 => format!("{} hours", self.between(2, 24)),
            1 => format!("{count} seconds"),
            2 => format!("{} hours and {count} minutes", self.between(2, 9)),
            3 => self
                .choose(&["one hour", "half an hour", "five minutes", "ten minutes", "an hour", "one minute"])
                .to_owned(),
            _ => format!("{count} minutes"),
        }
    }

    /// Said with blanks or without, called without.
    fn expression(&mut self) -> Value {
        let compact = self.arithmetic();
        let (mut said, spaced) = (String::new(), self.percent(65));
        let symbols = self.weighted(&[if spaced { 75 } else { 1 }, 15, 5, 5][..if spaced { 4 } else { 1 }]);
        let mut operand_before = false;
        for symbol in compact.chars() {
            let operator = "+-*/^".contains(symbol) && operand_before;
            match (operator, spaced) {
                (true, true) => said.push_str(&format!(" {} ", spoken(symbol, symbols))),
                _ => said.push(symbol),
            }
            operand_before = symbol.is_ascii_digit() || symbol == ')';
        }
        Value { said, argument: Argument::Text(compact) }
    }

    fn arithmetic(&mut self) -> String {
        let (a, b, c) = (self.operand(), self.operand(), self.operand());
        let (op, op2) = (self.choose(&["+", "-", "*", "/", "*", "+"]), self.choose(&["+", "-", "*", "/"]));
        match self.below(14) {
            0 => format!("({a}{op}{b}){op2}{c}"),
            1 => format!("{a}{op}({b}{op2}{c})"),
            2 | 3 => format!("{a}{op}{b}{op2}{c}"),
            4 => format!("{}^{}", self.between(2, 99), self.between(2, 12)),
            5 => format!("({a}{op}{b})/({c}{op2}{})", self.operand()),
            _ => format!("{a}{op}{b}"),
        }
    }

    fn operand(&mut self) -> String {
        match self.below(10) {
            0 => self.digits(4, 7),
            1 => format!("{}.{}", self.digits(1, 3), self.digits(1, 2)),
            2..=5 => self.digits(2, 2),
            6 => self.digits(1, 1),
            _ => self.digits(2, 3),
        }
    }

    fn quantity(&mut self) -> Value {
        let whole = self.digits(1, 4);
        match self.below(20) {
            0..=4 => {
                let fraction = format!("{}{}", if self.percent(20) { "0" } else { "" }, self.between(1, 9));
                Value::number(format!("{whole}.{fraction}"), format!("{whole}.{fraction}"))
            }
            5 => Value::number(format!("-{whole}"), format!("-{whole}")),
            6 => {
                let digits = self.digits(5, 7);
                Value::number(digits.clone(), digits)
            }
            7 => {
                let (thousands, rest) = (self.digits(1, 3), format!("{:03}", self.between(0, 999)));
                Value::number(format!("{thousands},{rest}"), format!("{thousands}{rest}"))
            }
            _ => Value::number(whole.clone(), whole),
        }
    }

    /// A whole number, now and then in letters.
    fn small_number(&mut self, least: i64, most: i64) -> Value {
        const WORDS: [&str; 11] =
            ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
        let number = self.between(least, most);
        match usize::try_from(number - 2).ok().and_then(|at| WORDS.get(at)) {
            Some(word) if self.percent(20) => Value::number((*word).to_owned(), number.to_string()),
            _ => Value::number(number.to_string(), number.to_string()),
        }
    }

    fn high_number(&mut self, low: Option<&(ValueType, Value)>) -> Value {
        let low = low.and_then(|(_, low)| low.argument.as_str().parse().ok()).unwrap_or(0);
        let high = low + self.between(1, 9) * [1, 10, 100, 1000][self.below(4)];
        Value::number(high.to_string(), high.to_string())
    }

    fn unit(&mut self) -> String {
        let lists = self.lists;
        if self.percent(25) {
            return self.word() + "s";
        }
        let row = self.pick(&lists.units);
        self.pick(row).clone()
    }

    /// Another unit of the dimension that the first unit has. Held out are pairs.
    fn other_unit(&mut self, from: Option<&(ValueType, Value)>, earlier: &[(ValueType, Value)]) -> Value {
        let lists = self.lists;
        let from = from.map(|(_, from)| from.said.as_str()).unwrap_or_default();
        let row = lists.units.iter().find(|row| row.iter().any(|unit| unit == from));
        let pair = self.in_part(
            |pair: &String| pair,
            |draw| loop {
                let to = match row {
                    Some(row) => draw.pick(row).clone(),
                    None => draw.word() + "s",
                };
                if earlier.iter().all(|(_, value)| !value.said.eq_ignore_ascii_case(&to)) {
                    return format!("{from}>{to}");
                }
            },
        );
        Value::text(pair.rsplit('>').next().unwrap_or_default().to_owned())
    }

    fn currency(&mut self) -> String {
        let lists = self.lists;
        match self.below(10) {
            0 => self.capitals(3, 3),
            1 => self.word() + "s",
            _ => self.pick(&lists.currencies).clone(),
        }
    }

    /// An e-mail address.
    fn address(&mut self) -> String {
        let lists = self.lists;
        let who = self.pick(&lists.first_names).to_lowercase().replace([' ', '.'], "");
        let domain = format!("{}.{}", self.word(), self.pick(&lists.domains));
        match self.below(3) {
            0 => format!("{who}@{domain}"),
            1 => format!("{}.{}@{domain}", self.word(), self.word()),
            _ => format!("{}{}@{domain}", self.word(), self.digits(1, 3)),
        }
    }

    /// A web address.
    pub(crate) fn url(&mut self) -> String {
        let lists = self.lists;
        let domain = format!("{}.{}", self.word(), self.pick(&lists.domains));
        match self.below(4) {
            0 => domain,
            1 => format!("www.{domain}"),
            2 => format!("https://{domain}/{}", self.word()),
            _ => format!("https://{domain}"),
        }
    }

    /// A path of a file.
    pub(crate) fn path(&mut self) -> String {
        let lists = self.lists;
        let name = match self.below(3) {
            0 => self.pick(&lists.nouns).clone(),
            1 => self.word(),
            _ => format!("{}_{}", self.pick(&lists.nouns), self.digits(1, 2)),
        };
        let file = format!("{name}.{}", self.pick(&lists.extensions));
        match self.below(4) {
            0 => format!("{}/{file}", self.pick(&lists.folders)),
            1 => format!("/{}/{}/{file}", self.pick(&lists.folders), self.word()),
            _ => file,
        }
    }

    /// A name as programs and servers have.
    fn identifier(&mut self) -> String {
        match self.below(4) {
            0 => format!("{}-{}", self.word(), self.digits(1, 3)),
            1 => format!("{}_{}", self.word(), self.word()),
            2 => format!("{}.{}", self.word(), self.word()),
            _ => self.word(),
        }
    }

    fn flight(&mut self) -> String {
        let number = self.digits(2, 4);
        if self.percent(80) {
            self.capitals(2, 2) + &number
        } else {
            format!("{} {number}", self.capitals(2, 2))
        }
    }

    fn on_off(&mut self) -> Value {
        let on = self.percent(50);
        Value { said: if on { "on" } else { "off" }.to_owned(), argument: Argument::Boolean(on) }
    }
}

/// An operator as somebody types or says it.
fn spoken(symbol: char, style: usize) -> String {
    let spoken = match (symbol, style) {
        ('+', 1) => "plus",
        ('-', 1) => "minus",
        ('*', 1) => "times",
        ('/', 1) => "divided by",
        ('*', 2) => "x",
        ('*', 3) => "×",
        ('/', 3) => "÷",
        _ => return symbol.to_string(),
    };
    spoken.to_owned()
}
