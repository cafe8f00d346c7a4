//! Tools with schemas of every form, called with the plainest arguments that each takes.
//!
//! Programs that try a server out declare such tools: objects in objects, arrays, choices, bounds. A request says
//! nothing of most values, so what stands in the call follows from the schema alone: the least number, the first
//! choice, `"example"`, the empty array, and of an object what is required. What the request does say is copied.

use indexmap::IndexMap;
use k2_chat::{Json, Tool};

use super::declaration::{object, text};
use super::dialogue::{Call, Dialogue, Exchange, Topic};
use super::draw::Draw;

/// What a string is where nothing says what it should be.
const EXAMPLE: &str = "example";

/// A schema, and the plainest value that it takes.
struct Form {
    schema: IndexMap<String, Json>,
    value: Json,
}

/// An object's properties: name, form, required or not; sorted by name.
type Properties = Vec<(String, Form, bool)>;

impl Draw<'_> {
    /// One request for one call.
    pub(crate) fn schema_dialogue(&mut self) -> Dialogue {
        let name = self.function_name();
        let mut properties = self.properties(0, 5);
        let mut user = self.request(&name);
        if self.percent(45) {
            user.push_str(&self.given(&mut properties));
        }
        let definitions = self.definitions(&mut properties);
        let mut parameters = self.object_form(properties);
        if !definitions.is_empty() {
            parameters.schema.insert("$defs".to_owned(), Json::Object(definitions));
        }
        let function = object([
            ("name", text(&name)),
            ("description", text(self.choose(&DESCRIPTIONS))),
            ("parameters", Json::Object(parameters.schema)),
        ]);
        let tool = Tool(object([("type", text("function")), ("function", function)]));
        let (result, answer) = self.outcome();
        let call = Call { name, arguments: parameters.value, result, values: Vec::new() };
        Dialogue {
            system: self.system().text,
            tools: vec![tool],
            exchanges: vec![Exchange { topic: Topic::Call, user, calls: vec![call], answer }],
            named_results: self.percent(55),
        }
    }

    fn function_name(&mut self) -> String {
        match self.below(4) {
            0 => self.word(),
            1 => format!("{}_{}", self.word(), self.plain_word()),
            2 => format!("{}_{}_case", self.plain_word(), self.word()),
            _ => format!("{}_{}", self.plain_word(), self.plain_word()),
        }
        .replace([' ', '\''], "_")
        .to_lowercase()
    }

    fn request(&mut self, name: &str) -> String {
        let mut user = self.choose(&REQUESTS).replace("NAME", name);
        for rule in RULES {
            if self.percent(25) {
                user.push(' ');
                user.push_str(rule);
            }
        }
        user
    }

    /// Says values for some of the plain properties, and puts them in.
    fn given(&mut self, properties: &mut Properties) -> String {
        let mut said = String::new();
        for (name, form, required) in properties {
            let is_free = form.schema.keys().all(|key| key == "type" || key == "description");
            let value = match form.schema.get("type").and_then(Json::as_str) {
                Some("string") if is_free => Json::String(self.made_up_text()),
                Some("integer") if is_free => Json::Number(self.digits(1, 3)),
                _ => continue,
            };
            if self.percent(50) {
                continue;
            }
            let shown = match &value {
                Json::String(text) | Json::Number(text) => text.clone(),
                _ => continue,
            };
            let how =
                self.choose(&[" KEY is VALUE.", " Set KEY to VALUE.", " Use VALUE as KEY.", " KEY: VALUE."]);
            said.push_str(&how.replace("KEY", name).replace("VALUE", &shown));
            (form.value, *required) = (value, true);
        }
        said
    }

    fn made_up_text(&mut self) -> String {
        match self.below(4) {
            0 => self.word(),
            1 => self.city(),
            2 => self.code(),
            _ => self.plain_word(),
        }
    }

    /// Sometimes a property's schema stands elsewhere and is referred to, now and then by itself too.
    fn definitions(&mut self, properties: &mut Properties) -> IndexMap<String, Json> {
        let mut definitions = IndexMap::new();
        for (_, form, _) in properties {
            let name = self.property_name();
            if !self.percent(8) || definitions.contains_key(&name) {
                continue;
            }
            let reference = IndexMap::from([("$ref".to_owned(), Json::String(format!("#/$defs/{name}")))]);
            let mut defined = std::mem::replace(&mut form.schema, reference.clone());
            if let Some(Json::Object(inner)) = defined.get_mut("properties")
                && !inner.contains_key("next")
                && self.percent(50)
            {
                inner.insert("next".to_owned(), Json::Object(reference));
            }
            definitions.insert(name, Json::Object(defined));
        }
        definitions
    }

    fn properties(&mut self, depth: usize, most: i64) -> Properties {
        let mut properties = Properties::new();
        let least = i64::from(depth > 0 || self.percent(92));
        for _ in 0..self.between(least, most) {
            let name = self.property_name();
            if properties.iter().all(|(other, ..)| *other != name) {
                let form = self.form(depth);
                properties.push((name, form, self.percent(60)));
            }
        }
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        properties
    }

    fn property_name(&mut self) -> String {
        let name = match self.below(6) {
            0 => self.word(),
            1 => format!("{}_{}", self.plain_word(), self.plain_word()),
            _ => self.plain_word(),
        };
        name.replace([' ', '\''], "_").to_lowercase()
    }

    fn form(&mut self, depth: usize) -> Form {
        let kind = if depth < 2 {
            self.weighted(&[34, 14, 8, 10, 10, 4, 10, 10, 4, 6])
        } else {
            self.weighted(&[40, 20, 10, 10, 10, 4])
        };
        let mut form = match kind {
            0 => self.string_form(),
            1 => self.number_form("integer"),
            2 => self.number_form("number"),
            3 => plain("boolean", Json::Bool(true)),
            4 => self.choice_form(),
            5 => plain("null", Json::Null),
            6 => self.array_form(depth),
            8 => self.map_form(depth),
            9 => self.either_form(depth),
            _ => {
                let properties = self.properties(depth + 1, 3);
                self.object_form(properties)
            }
        };
        if self.percent(30) {
            let description = format!("The {}.", self.plain_word());
            form.schema.insert("description".to_owned(), Json::String(description));
        }
        form
    }

    fn string_form(&mut self) -> Form {
        let mut form = plain("string", text(EXAMPLE));
        if self.percent(15) {
            form.schema.insert("minLength".to_owned(), self.small_bound(1, 7));
        }
        if self.percent(10) {
            form.schema.insert("maxLength".to_owned(), self.small_bound(7, 60));
        }
        form
    }

    fn small_bound(&mut self, least: i64, most: i64) -> Json {
        Json::Number(self.between(least, most).to_string())
    }

    fn number_form(&mut self, kind: &str) -> Form {
        let mut form = plain(kind, Json::Number("1".to_owned()));
        if self.percent(40) {
            form.value = self.small_bound(0, 200);
            form.schema.insert("minimum".to_owned(), form.value.clone());
            if self.percent(50) {
                form.schema.insert("maximum".to_owned(), self.small_bound(201, 999));
            }
        }
        form
    }

    fn choice_form(&mut self) -> Form {
        let choices: Vec<Json> = (0..self.between(1, 4)).map(|_| Json::String(self.plain_word())).collect();
        let value = choices[0].clone();
        let mut schema = IndexMap::new();
        if self.percent(80) {
            schema.insert("type".to_owned(), text("string"));
        }
        match choices.len() {
            1 => schema.insert("const".to_owned(), value.clone()),
            _ => schema.insert("enum".to_owned(), Json::Array(choices)),
        };
        Form { schema, value }
    }

    fn array_form(&mut self, depth: usize) -> Form {
        let items = self.form(depth + 1);
        let least = if self.percent(40) { self.between(1, 2) } else { 0 };
        let mut form = plain("array", Json::Array(vec![items.value; least as usize]));
        form.schema.insert("items".to_owned(), Json::Object(items.schema));
        if least > 0 {
            form.schema.insert("minItems".to_owned(), Json::Number(least.to_string()));
        }
        form
    }

    /// An object of any names.
    fn map_form(&mut self, depth: usize) -> Form {
        let values = self.form(depth + 1);
        let mut form = plain("object", Json::Object(IndexMap::new()));
        form.schema.insert("additionalProperties".to_owned(), Json::Object(values.schema));
        form
    }

    /// One of two forms; the first is taken.
    fn either_form(&mut self, depth: usize) -> Form {
        let (first, second) = (self.form(depth + 1), self.form(depth + 1));
        let both = vec![Json::Object(first.schema), Json::Object(second.schema)];
        Form { schema: IndexMap::from([("anyOf".to_owned(), Json::Array(both))]), value: first.value }
    }

    fn object_form(&mut self, properties: Properties) -> Form {
        let names = properties.iter().filter(|(.., required)| *required).map(|(name, ..)| text(name));
        let required: Vec<Json> = names.collect();
        let (mut schemas, mut values) = (IndexMap::new(), IndexMap::new());
        for (name, form, required) in properties {
            if required {
                values.insert(name.clone(), form.value);
            }
            schemas.insert(name, Json::Object(form.schema));
        }
        let mut form = plain("object", Json::Object(values));
        form.schema.insert("properties".to_owned(), Json::Object(schemas));
        if !required.is_empty() || self.percent(50) {
            form.schema.insert("required".to_owned(), Json::Array(required));
        }
        if self.percent(40) {
            form.schema.insert("additionalProperties".to_owned(), Json::Bool(false));
        }
        form
    }

    /// What comes back, and what is said of it.
    fn outcome(&mut self) -> (String, String) {
        let (key, value) = (self.plain_word(), self.plain_word());
        match self.below(3) {
            0 => ("{}".to_owned(), "Done.".to_owned()),
            1 => (value.clone(), format!("Done: {value}.")),
            _ => (format!("{{\"{key}\": \"{value}\"}}"), format!("Done: {key} {value}.")),
        }
    }
}

fn plain(kind: &str, value: Json) -> Form {
    Form { schema: IndexMap::from([("type".to_owned(), text(kind))]), value }
}

const DESCRIPTIONS: [&str; 8] = [
    "Takes arguments that are valid under this schema.",
    "A tool for tests.",
    "Submits arguments to the service.",
    "Checks its arguments against the schema.",
    "Does what its parameters say.",
    "Submit JSON arguments here.",
    "Sends the record on.",
    "Minimal arguments are enough.",
];

const REQUESTS: [&str; 14] = [
    "Call the NAME tool once with minimal arguments.",
    "Call NAME with any valid arguments.",
    "Use NAME and make the arguments up.",
    "Run NAME with the smallest arguments that its schema allows.",
    "Please test NAME with example values.",
    "Try NAME.",
    "I want to see a call of NAME, whatever the arguments.",
    "Make one call of NAME whose arguments satisfy its parameter schema.",
    "Show me that you can call NAME.",
    "Call NAME exactly once.",
    "Invoke NAME with placeholder values.",
    "NAME, please, with the least it takes.",
    "Fill in the parameters of NAME as you like and call it.",
    "Do a dry run of NAME.",
];

const RULES: [&str; 8] = [
    "Include every required property.",
    "Leave out what is not required.",
    "Respect enum, const, minimum, minItems and minLength.",
    "Use empty arrays and empty objects where they are allowed.",
    "Do not copy or describe the schema.",
    "Do not answer with text.",
    "Keep values short.",
    "Try your best to make the arguments.",
];
