//! A kind as one client declares it: names, descriptions, schema.
//!
//! Everything that can differ does: the name and its spelling, the parameters' names, types and descriptions,
//! what is optional. A few names say nothing at all, so that the description has to be read.

use indexmap::IndexMap;
use k2_chat::{Json, Tool};
use std::sync::Arc;

use super::catalogue::{Kind, Parameter, slots};
use super::draw::Draw;
use super::invented::capitalize;
use super::phrases::Slots;
use super::values::Argument;

/// A declared tool.
pub(crate) struct Declared {
    pub(crate) kind: Arc<Kind>,
    pub(crate) name: String,
    /// Sorted by name: the order in which the turn format prints them and the model writes them.
    pub(crate) parameters: Vec<DeclaredParameter>,
    pub(crate) tool: Tool,
}

/// A declared parameter.
pub(crate) struct DeclaredParameter {
    pub(crate) parameter: Parameter,
    pub(crate) name: String,
    json_type: &'static str,
    described: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    Snake,
    Camel,
    Kebab,
    Pascal,
}

impl Declared {
    /// True if a phrase only has slots that this tool takes.
    pub(crate) fn takes(&self, phrase: &str) -> bool {
        slots(phrase).all(|slot| self.parameter(slot).is_some())
    }

    /// The required slots that a phrase does not fill.
    pub(crate) fn missing(&self, phrase: &str) -> Vec<&DeclaredParameter> {
        let filled =
            |declared: &&DeclaredParameter| slots(phrase).any(|slot| slot == declared.parameter.slot);
        self.parameters.iter().filter(|declared| !declared.parameter.optional && !filled(declared)).collect()
    }

    /// The declared parameter of a slot.
    pub(crate) fn parameter(&self, slot: &str) -> Option<&DeclaredParameter> {
        let slot = self.kind.parameter(slot)?.slot.as_str();
        self.parameters.iter().find(|declared| declared.parameter.slot == slot)
    }

    /// The arguments of a call with these values.
    pub(crate) fn arguments(&self, values: &Slots) -> Json {
        let argument = |declared: &DeclaredParameter| {
            let (_, value) = values.iter().find(|(slot, _)| *slot == declared.parameter.slot)?;
            Some((declared.name.clone(), declared.json(&value.argument)))
        };
        Json::Object(self.parameters.iter().filter_map(argument).collect())
    }
}

impl DeclaredParameter {
    /// The argument in the type of the schema.
    fn json(&self, argument: &Argument) -> Json {
        match argument {
            Argument::Number(number) if self.json_type != "string" => Json::Number(number.clone()),
            Argument::Boolean(value) => Json::Bool(*value),
            argument => Json::String(argument.as_str().to_owned()),
        }
    }
}

impl Draw<'_> {
    /// Declares a kind.
    pub(crate) fn declare(&mut self, kind: Arc<Kind>) -> Declared {
        let spelling = [Spelling::Snake, Spelling::Camel, Spelling::Kebab, Spelling::Pascal]
            [self.weighted(&[76, 14, 7, 3])];
        let (name, tells) = self.tool_name(&kind, spelling);
        let description = self.description(&kind);
        let parameters = self.parameters(&kind, spelling, tells);
        let mut function = IndexMap::from([
            ("name".to_owned(), text(&name)),
            ("description".to_owned(), Json::String(description)),
            ("parameters".to_owned(), self.schema(&parameters)),
        ]);
        if self.percent(4) {
            function.insert("strict".to_owned(), Json::Bool(self.percent(50)));
        }
        let tool = object([("type", text("function")), ("function", Json::Object(function))]);
        Declared { kind, name, parameters, tool: Tool(tool) }
    }

    /// A name, and whether it says what the tool is for.
    fn tool_name(&mut self, kind: &Kind, spelling: Spelling) -> (String, bool) {
        if self.percent(4) {
            let name = match self.below(3) {
                0 => format!("tool_{}", self.digits(1, 2)),
                1 => format!("fn_{}", self.word()),
                _ => self.word(),
            };
            return (name, false);
        }
        let name = self.pick(&kind.names).clone();
        let name = match self.below(24) {
            0 => format!("{name}_tool"),
            1 => format!("{name}_v{}", self.between(1, 4)),
            2 => format!("{}_{name}", self.word()),
            3 => return (format!("{}.{}", self.word(), spelled(&name, spelling)), true),
            _ => name,
        };
        (spelled(&name, spelling), true)
    }

    fn description(&mut self, kind: &Kind) -> String {
        let description = self.pick(&kind.descriptions).clone();
        match self.below(10) {
            0 | 1 => format!("{description} Call this when the user asks about {}.", kind.topic),
            2 => format!("{description} Use this tool for {}.", kind.topic),
            3 => description.trim_end_matches('.').to_owned(),
            _ => description,
        }
    }

    fn parameters(&mut self, kind: &Kind, spelling: Spelling, tells: bool) -> Vec<DeclaredParameter> {
        let mut declared: Vec<DeclaredParameter> = Vec::new();
        let described = self.percent(85);
        for parameter in &kind.parameters {
            if parameter.optional && self.percent(55) {
                continue;
            }
            let (mut name, vague) = self.parameter_name(parameter, spelling, tells);
            while declared.iter().any(|other| other.name == name) {
                name = self.parameter_name(parameter, spelling, true).0;
            }
            let described = (described || vague).then(|| self.pick(&parameter.descriptions).clone());
            let json_type = self.json_type(parameter);
            declared.push(DeclaredParameter { parameter: parameter.clone(), name, json_type, described });
        }
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        declared
    }

    /// A name, and whether it says nothing.
    fn parameter_name(&mut self, parameter: &Parameter, spelling: Spelling, tells: bool) -> (String, bool) {
        if tells && self.percent(2) {
            return (format!("{}{}", self.choose(&["arg", "p", "param_", "x"]), self.between(1, 9)), true);
        }
        let spelling = if spelling == Spelling::Camel { spelling } else { Spelling::Snake };
        let name = self.pick(&parameter.names).clone();
        (spelled(&name, spelling), false)
    }

    fn json_type(&mut self, parameter: &Parameter) -> &'static str {
        match parameter.kind {
            super::values::ValueType::OnOffBoolean => "boolean",
            kind if kind.is_number() && self.percent(6) => "string",
            kind if kind.is_integer() && self.percent(70) => "integer",
            kind if kind.is_number() => "number",
            _ => "string",
        }
    }

    fn schema(&mut self, parameters: &[DeclaredParameter]) -> Json {
        let mut order: Vec<&DeclaredParameter> = parameters.iter().collect();
        self.shuffle(&mut order);
        let property = |declared: &&DeclaredParameter| (declared.name.clone(), declared.schema());
        let properties: IndexMap<String, Json> = order.iter().map(property).collect();
        let required: Vec<Json> = order
            .iter()
            .filter(|declared| !declared.parameter.optional)
            .map(|declared| text(&declared.name))
            .collect();
        let mut schema = IndexMap::from([
            ("type".to_owned(), text("object")),
            ("properties".to_owned(), Json::Object(properties)),
        ]);
        if !parameters.is_empty() || self.percent(50) {
            schema.insert("required".to_owned(), Json::Array(required));
        }
        if self.percent(10) {
            schema.insert("additionalProperties".to_owned(), Json::Bool(false));
        }
        Json::Object(schema)
    }
}

impl DeclaredParameter {
    fn schema(&self) -> Json {
        let mut schema = IndexMap::from([("type".to_owned(), text(self.json_type))]);
        if let Some(description) = &self.described {
            schema.insert("description".to_owned(), text(description));
        }
        if let Some(choices) = self.parameter.kind.choices() {
            schema
                .insert("enum".to_owned(), Json::Array(choices.iter().map(|choice| text(choice)).collect()));
        }
        Json::Object(schema)
    }
}

/// `get_weather` in another spelling.
fn spelled(name: &str, spelling: Spelling) -> String {
    match spelling {
        Spelling::Snake => name.to_owned(),
        Spelling::Kebab => name.replace('_', "-"),
        Spelling::Pascal => name.split('_').map(capitalize).collect(),
        Spelling::Camel => {
            let (first, rest) = name.split_once('_').unwrap_or((name, ""));
            let rest: String = rest.split('_').map(capitalize).collect();
            format!("{first}{rest}")
        }
    }
}

/// A JSON string.
pub(crate) fn text(text: &str) -> Json {
    Json::String(text.to_owned())
}

/// A JSON object.
pub(crate) fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
