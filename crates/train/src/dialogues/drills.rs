//! Exercises in copying: to repeat, to pick out of a list, to write JSON.
//!
//! Attention heads that find a token again and give what followed it (induction heads: Olsson et al., arXiv
//! 2209.11895) are what tool calls are made of. These exercises are nothing but that, so the heads form early
//! and for every token, not only for those that cities begin with.

use super::conversation::Conversation;
use super::dialogue::Topic;
use super::draw::Draw;

impl Conversation<'_, '_> {
    /// "Repeat: ..." and the like.
    pub(crate) fn copy(&mut self) {
        let (user, answer) = match self.draw.below(8) {
            0 | 1 => self.draw.repeat(),
            2 => self.draw.write_json(),
            3 => self.draw.read_json(),
            4 => self.draw.after(),
            5 => self.draw.fill_in_json(),
            6 => self.draw.json_about(),
            _ => self.draw.value_of(),
        };
        self.say(Topic::Copy, user, answer);
    }
}

impl Draw<'_> {
    /// A line of words and codes, to be continued with itself.
    pub(crate) fn line(&mut self, least: i64, most: i64) -> String {
        let length = self.between(least, most);
        (0..length).map(|_| self.anything()).collect::<Vec<_>>().join(" ")
    }

    /// A word, a name, a number or a code.
    fn anything(&mut self) -> String {
        match self.below(8) {
            0 if self.scope.spliced => self.spliced(),
            0 | 1 => self.word(),
            2 => self.name(),
            3 => self.code(),
            4 => self.decimal(),
            5 => self.city(),
            _ => self.plain_word(),
        }
    }

    fn key(&mut self) -> String {
        match self.below(3) {
            0 => self.word(),
            1 => format!("{}_{}", self.plain_word(), self.plain_word()),
            _ => self.plain_word(),
        }
    }

    /// Keys and values, no key twice; values as JSON.
    fn facts(&mut self) -> Vec<(String, String)> {
        let mut facts: Vec<(String, String)> = Vec::new();
        for _ in 0..self.between(2, 4) {
            let key = self.key();
            if facts.iter().all(|(other, _)| *other != key) {
                let value =
                    if self.percent(35) { self.decimal() } else { format!("\"{}\"", self.anything()) };
                facts.push((key, value));
            }
        }
        facts
    }

    fn repeat(&mut self) -> (String, String) {
        let line = self.line(1, 6);
        let how = self.choose(&[
            "Repeat: ",
            "Repeat after me: ",
            "Say exactly this: ",
            "Copy: ",
            "Please repeat: ",
        ]);
        (format!("{how}{line}"), line)
    }

    fn write_json(&mut self) -> (String, String) {
        let facts = self.facts();
        let said: Vec<String> =
            facts.iter().map(|(key, value)| format!("{key} = {}", value.trim_matches('"'))).collect();
        let how = self.choose(&["Write as JSON: ", "As JSON: ", "Make JSON of this: "]);
        (format!("{how}{}", said.join(", ")), json(&facts))
    }

    /// An object is asked for, and nothing is known that could stand in it.
    fn fill_in_json(&mut self) -> (String, String) {
        let mut keys: Vec<String> = Vec::new();
        let form = self.choose(&JSON_REQUESTS).to_owned();
        let most = if form.contains("KEYS") { 4 } else { 1 };
        for _ in 0..self.between(1, most) {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut about = self.anything();
        if self.percent(40) {
            about = format!("the {} of {about}", self.plain_word());
        }
        let quotes = self.choose(&["", "", "'", "\"", "`"]).to_owned();
        let quoted: Vec<String> = keys.iter().map(|key| format!("{quotes}{key}{quotes}")).collect();
        let user = form
            .replace("(s)", if keys.len() > 1 { "s" } else { "" })
            .replace("KEYS", &quoted.join(", "))
            .replace("KEY", &quoted[0])
            .replace("ABOUT", &about);
        let facts: Vec<(String, String)> =
            keys.into_iter().map(|key| (key, "\"unknown\"".to_owned())).collect();
        (user, json(&facts))
    }

    /// An object is asked for without a word about what stands in it: what it is about.
    fn json_about(&mut self) -> (String, String) {
        let (key, of) = (self.plain_word(), self.anything());
        let user = self
            .choose(&[
                "Return the KEY of ABOUT as JSON.",
                "Give me the KEY of ABOUT in JSON.",
                "The KEY of ABOUT as JSON, please.",
                "Show the KEY of ABOUT as a JSON object.",
                "What is the KEY of ABOUT? JSON only.",
                "Write down the KEY of ABOUT, as JSON.",
            ])
            .replace("KEY", &key)
            .replace("ABOUT", &of);
        (user, json(&[(key.replace(' ', "_"), "\"unknown\"".to_owned())]))
    }

    fn read_json(&mut self) -> (String, String) {
        let facts = self.facts();
        let (key, value) = self.pick(&facts).clone();
        let value = value.trim_matches('"').to_owned();
        (format!("{}\nWhat is {key}?", json(&facts)), value)
    }

    fn value_of(&mut self) -> (String, String) {
        let facts = self.facts();
        let (key, value) = self.pick(&facts).clone();
        let said: Vec<String> =
            facts.iter().map(|(key, value)| format!("{key}: {}", value.trim_matches('"'))).collect();
        (format!("What is {key}?\n{}", said.join("\n")), value.trim_matches('"').to_owned())
    }

    fn after(&mut self) -> (String, String) {
        let mut words: Vec<String> = Vec::new();
        while words.len() < 6 {
            let word = self.word();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        let at = self.below(words.len() - 1);
        (format!("Which word comes after {} in: {}?", words[at], words.join(", ")), words[at + 1].clone())
    }
}

/// Those with KEY alone name one.
const JSON_REQUESTS: [&str; 16] = [
    "Answer as a JSON object with the key(s) KEYS.",
    "Describe ABOUT as JSON with KEYS.",
    "Give me a JSON object about ABOUT: KEYS.",
    "Tell me about ABOUT. Output JSON with the field(s) KEYS.",
    "Return JSON for ABOUT. Key(s): KEYS.",
    "What is the KEY of ABOUT? Answer in JSON, with KEYS.",
    "Reply with one JSON object that has KEYS, nothing else.",
    "ABOUT: KEYS. JSON only, please.",
    "Write ABOUT in JSON form. It needs the key(s) KEYS.",
    "I need ABOUT as a JSON object; call the field(s) KEYS.",
    "Show me ABOUT as JSON. The object has to have KEYS.",
    "Return JSON. There should be a member named KEY in it, and it is about ABOUT.",
    "Output ABOUT as JSON. A key called KEY is required.",
    "Give ABOUT as JSON; the answer should contain the field(s) KEYS.",
    "JSON about ABOUT, please, with key(s) named KEYS.",
    "Produce valid JSON for ABOUT, and include KEYS.",
];

fn json(facts: &[(String, String)]) -> String {
    let members: Vec<String> = facts.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}
