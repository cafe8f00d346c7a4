//! Synthetic tool dialogues: the training data of the model that ships, made by this module alone.
//!
//! # What decides
//!
//! A model of a few million active parameters cannot know anything; what it can learn is to *read*: which declared
//! tool a request is for, which words of it are values, what a result says. So everything that could be remembered
//! instead is shuffled. Tools have many names, descriptions and schemas
//! ([`declaration`]), a third and more of all values are invented ([`invented`]), results contradict the world
//! ([`results`]).
//!
//! The assistant's own words, which carry the loss, are a function of what stands before them ([`answers`],
//! [`small_talk`]): sampled at a temperature of 0.6 they should come out as at 0. Arguments are written like
//! `{"city": "Beijing"}`, in the alphabetical order in which the turn format prints a schema's properties.
//!
//! # What is held out
//!
//! One value in five by a hash of it, some phrases of each kind, and whole tools ([`draw::Scope`]); evaluation
//! draws from those.

mod answers;
pub mod catalogue;
pub mod chinese;
mod conversation;
mod declaration;
pub mod dialogue;
pub mod draw;
mod drills;
mod invented;
pub mod lists;
pub mod made_up;
mod phrases;
pub mod related;
mod renamed;
mod results;
mod schemas;
pub mod small_talk;
mod system;
pub mod values;

pub use catalogue::{Catalogue, CatalogueError};
pub use dialogue::{Call, Dialogue, Exchange, Topic};
pub use draw::{Part, Scope, is_held_out};

use std::sync::Arc;

use conversation::Conversation;
use draw::Draw;

/// How often a dialogue has one exchange, two, and so on. Long ones teach the far end of the context, and the
/// assistant says more for every declaration that is read.
const EXCHANGES: [usize; 14] = [26, 22, 15, 10, 7, 5, 4, 3, 2, 2, 1, 1, 1, 1];

/// How often one tool is declared, two, and so on.
const TOOLS: [usize; 4] = [22, 30, 27, 21];

/// So many dialogues out of a hundred are in Chinese.
const CHINESE: usize = 8;

/// Makes dialogues; the same number gives the same dialogue.
pub struct Generator {
    catalogue: Catalogue,
    seed: u64,
}

impl Generator {
    /// A generator of a seed.
    pub fn new(seed: u64) -> Result<Generator, CatalogueError> {
        Ok(Generator { catalogue: Catalogue::load()?, seed })
    }

    /// The tables it draws from.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// A dialogue as training sees them: any mix of exchanges, with or without tools.
    pub fn dialogue(&self, scope: Scope, index: u64) -> Dialogue {
        let mut draw = self.draw(scope, index);
        if draw.percent(CHINESE) {
            let exchanges = 1 + draw.weighted(&EXCHANGES);
            let mut conversation = self.begin_chinese(&mut draw);
            (0..exchanges).for_each(|_| conversation.chinese());
            return conversation.end();
        }
        let with_tools = draw.percent(86);
        let tools = if with_tools { 1 + draw.weighted(&TOOLS) } else { 0 };
        let exchanges = 1 + draw.weighted(&EXCHANGES);
        let mut conversation = Conversation::begin(&mut draw, &self.catalogue, tools);
        for _ in 0..exchanges {
            if with_tools {
                exchange_with_tools(&mut conversation)
            } else {
                exchange_without(&mut conversation)
            }
        }
        conversation.end()
    }

    /// A dialogue of one exchange of this topic, with tools declared; for evaluation.
    pub fn case(&self, scope: Scope, topic: Topic, index: u64) -> Dialogue {
        let mut draw = self.draw(scope, index);
        let mut conversation = match topic {
            Topic::Chinese => self.begin_chinese(&mut draw),
            _ => {
                let tools = 1 + draw.weighted(&TOOLS);
                Conversation::begin(&mut draw, &self.catalogue, tools)
            }
        };
        match topic {
            Topic::Call => conversation.call(),
            Topic::Chinese => conversation.chinese_call(),
            Topic::TwoCalls => conversation.two_calls(),
            Topic::NoTool if conversation.undeclared() => {}
            Topic::Missing if conversation.missing() => {}
            Topic::NoTool => conversation.beyond(),
            Topic::Missing | Topic::Talk => conversation.talk(),
            Topic::Identity => conversation.identity(),
            Topic::Tools => conversation.tools(),
            Topic::Copy => conversation.copy(),
        }
        let mut case = conversation.end();
        // What is missing is given in a second one.
        case.exchanges.truncate(1);
        case
    }

    /// A tool with a random schema, called with the plainest arguments.
    pub fn schema(&self, index: u64) -> Dialogue {
        self.draw(Scope::TRAINING, index).schema_dialogue()
    }

    /// A line of invented words; a document that says it twice teaches to copy.
    pub fn line(&self, index: u64) -> String {
        self.draw(Scope::TRAINING, index).line(6, 40)
    }

    /// Declares tools, one of which is asked for in Chinese.
    fn begin_chinese<'d, 'c>(&'c self, draw: &'d mut Draw<'c>) -> Conversation<'d, 'c> {
        let first = Arc::clone(draw.pick(&self.catalogue.chinese_kinds()));
        let tools = 1 + draw.weighted(&TOOLS);
        Conversation::begin_with(draw, &self.catalogue, tools, Some(first))
    }

    fn draw(&self, scope: Scope, index: u64) -> Draw<'_> {
        Draw::new(&self.catalogue.lists, scope, self.seed, index)
    }
}

fn exchange_with_tools(conversation: &mut Conversation<'_, '_>) {
    let done = match conversation.draw.weighted(&[42, 6, 16, 5, 30, 5, 4, 3, 4, 5]) {
        1 => conversation.follow_up(),
        2 => done(|| conversation.two_calls()),
        3 => conversation.missing(),
        4 => conversation.undeclared(),
        5 => done(|| conversation.beyond()),
        6 => done(|| conversation.talk()),
        7 => done(|| conversation.identity()),
        8 => done(|| conversation.tools()),
        9 => done(|| conversation.copy()),
        _ => false,
    };
    if !done {
        conversation.call();
    }
}

fn exchange_without(conversation: &mut Conversation<'_, '_>) {
    match conversation.draw.weighted(&[26, 18, 12, 6, 26, 12]) {
        0 => conversation.talk(),
        1 => conversation.identity(),
        2 => conversation.beyond(),
        3 => conversation.tools(),
        4 => conversation.copy(),
        _ => drop(conversation.undeclared()),
    }
}

fn done(act: impl FnOnce()) -> bool {
    act();
    true
}
