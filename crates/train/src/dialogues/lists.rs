//! `lists.toml`: the words that values are made of.

use serde::Deserialize;

/// Lists of words by what they name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // named like the lists of the file
pub struct Lists {
    pub cities: Vec<String>,
    pub first_names: Vec<String>,
    pub last_names: Vec<String>,
    pub nouns: Vec<String>,
    pub adjectives: Vec<String>,
    pub verbs: Vec<String>,
    pub bodies: Vec<String>,
    pub queries: Vec<String>,
    pub quotables: Vec<String>,
    pub titles: Vec<String>,
    pub sentences: Vec<String>,
    pub skies: Vec<String>,
    pub rooms: Vec<String>,
    pub items: Vec<String>,
    pub dishes: Vec<String>,
    pub languages: Vec<String>,
    pub foreign: Vec<String>,
    pub colors: Vec<String>,
    pub statuses: Vec<String>,
    pub flight_statuses: Vec<String>,
    pub call_statuses: Vec<String>,
    pub ratings: Vec<String>,
    pub zones: Vec<String>,
    pub speech: Vec<String>,
    pub weekdays: Vec<String>,
    pub months: Vec<String>,
    pub extensions: Vec<String>,
    pub folders: Vec<String>,
    pub domains: Vec<String>,
    pub name_endings: Vec<String>,
    pub makers: Vec<String>,
    pub units: Vec<Vec<String>>,
    pub currencies: Vec<String>,
    pub openings: Vec<String>,
    pub closings: Vec<String>,
}
