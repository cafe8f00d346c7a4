//! Tools declared inside messages are a feature of K3: K2 was not trained on it, so a server must refuse them rather
//! than drop them in silence. The rows are the refusals of MoonshotAI/Kimi-Vendor-Verifier's `test_dynamic_tools`.

use serde_json::{Value, json};

use super::case::{Case, Expected};

pub(super) fn cases() -> Vec<Case> {
    let user = json!({ "role": "user", "content": "hello" });
    let system = |tools: Value| json!({ "role": "system", "content": "", "tools": tools });
    let declared = |tools: Value| json!({ "messages": [system(tools), user] });
    let without = |field: &str| {
        let mut tool = tool("lookup");
        let within = if field == "name" { &mut tool["function"] } else { &mut tool };
        within.as_object_mut().map(|within| within.shift_remove(field));
        declared(json!([tool]))
    };
    let rows = [
        (
            "in a user message",
            json!({ "messages": [{ "role": "user", "content": "hi", "tools": [tool("lookup")] }, user] }),
        ),
        (
            "in an assistant message",
            json!({ "messages": [user, { "role": "assistant", "content": "hi", "tools": [tool("lookup")] }, user] }),
        ),
        (
            "beside content",
            json!({ "messages": [{ "role": "system", "content": "Be brief.", "tools": [tool("lookup")] }, user] }),
        ),
        ("without `type`", without("type")),
        ("without `function`", without("function")),
        ("without `name`", without("name")),
        ("a name that begins with a digit", declared(json!([tool("1lookup")]))),
        ("a name with @", declared(json!([tool("look@up")]))),
        ("an empty name", declared(json!([tool("")]))),
        ("a name of 257 letters", declared(json!([tool(&"a".repeat(257))]))),
        ("an unknown type", declared(json!([bogus()]))),
        ("an unknown type beside a known one", declared(json!([tool("lookup"), bogus()]))),
        ("no list", declared(json!({ "type": "function" }))),
        ("a null in the list", declared(json!([null]))),
        ("twice in one message", declared(json!([tool("twin"), tool("twin")]))),
        (
            "twice in two messages",
            json!({ "messages": [system(json!([tool("twin")])), system(json!([tool("twin")])), user] }),
        ),
        (
            "in a message and in the request",
            json!({ "tools": [tool("twin")], "messages": [system(json!([tool("twin")])), user] }),
        ),
        (
            "a tool message without `tool_call_id`",
            json!({ "messages": [{ "role": "tool", "content": "21 degrees" }, user] }),
        ),
    ];
    let case = |(name, mut body): (&str, Value)| {
        body["max_tokens"] = json!(16);
        Case::new(format!("{name}: refused"), body, Expected::Refusal)
    };
    rows.into_iter().map(case).collect()
}

fn tool(name: &str) -> Value {
    let parameters = json!({ "type": "object", "properties": {} });
    let function = json!({ "name": name, "description": "Looks something up.", "parameters": parameters });
    json!({ "type": "function", "function": function })
}

fn bogus() -> Value {
    json!({ "type": "procedure", "function": { "name": "lookup" } })
}
