//! Choosing a representation by the `Accept` header (RFC 9110, 12.5.1).

use super::Headers;
use super::media::{MediaType, Parameters};

/// Quality in thousandths, 0 meaning "not acceptable", 1000 meaning "as good as it gets".
type Quality = u16;

/// Whether the client wants errors as `application/problem+json` rather than as plain text.
///
/// Plain text is what existing clients show to their users, so it wins unless the client likes the other better, or
/// as much and names it. Elements that cannot be read are passed over: an error must not fail for its form.
pub fn prefers_problem_json(headers: &Headers) -> bool {
    let json = best_match(headers, "application/problem+json");
    let text = best_match(headers, "text/plain");
    match (json, text) {
        (None, _) => false,
        (Some((quality, precision)), None) => quality > 0 && precision > 0,
        (Some((json, precision)), Some((text, _))) => {
            json > text || json == text && json > 0 && precision == 2
        }
    }
}

/// Quality and precision (2 named, 1 `type/*`, 0 `*/*`) of the most precise range that covers `essence`.
fn best_match(headers: &Headers, essence: &str) -> Option<(Quality, u8)> {
    headers
        .tokens("accept")
        .filter_map(|element| range(std::str::from_utf8(element).ok()?, essence))
        .max_by_key(|&(_, precision)| precision)
}

/// Quality and precision of one element of the list, when it covers `essence`.
fn range(element: &str, essence: &str) -> Option<(Quality, u8)> {
    let media = MediaType::parse(element).ok()?;
    let (main, _) = essence.split_once('/')?;
    let precision = match media.essence() {
        "*/*" => 0,
        range if range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(main)) => 1,
        _ if media.is(essence) => 2,
        _ => return None,
    };
    Some((quality(element), precision))
}

/// The weight of an element: `q=0` to `q=1` with up to three decimals; 1 when there is none or it cannot be read.
fn quality(element: &str) -> Quality {
    let parameters = element.find(';').map_or("", |at| &element[at..]);
    let weight = Parameters(parameters).flatten().find(|(name, _)| name.eq_ignore_ascii_case("q"));
    match weight.and_then(|(_, value)| value.parse::<f32>().ok()) {
        Some(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as Quality,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants_json(accept: &[&str]) -> bool {
        let mut headers = Headers::new();
        accept.iter().for_each(|line| headers.push("Accept", line));
        prefers_problem_json(&headers)
    }

    #[test]
    fn plain_text_is_the_default() {
        for accept in
            [&[][..], &["*/*"], &["text/plain"], &["application/json"], &["text/html"], &["nonsense, ,;"]]
        {
            assert!(!wants_json(accept), "{accept:?}");
        }
    }

    #[test]
    fn problem_json_is_sent_to_those_who_name_it() {
        for accept in [
            &["application/problem+json"][..],
            &["Application/Problem+JSON; q=0.5"],
            &["text/plain, application/problem+json"],
            &["*/*, application/problem+json"],
            &["text/html", "application/problem+json"],
            &["application/*"],
        ] {
            assert!(wants_json(accept), "{accept:?}");
        }
    }

    #[test]
    fn weights_decide() {
        assert!(!wants_json(&["text/plain, application/problem+json;q=0.9"]));
        assert!(wants_json(&["text/plain;q=0.1, application/problem+json;q=0.2"]));
        assert!(!wants_json(&["application/problem+json;q=0"]));
        assert!(!wants_json(&["application/problem+json;q=0, */*;q=0"]));
        assert!(!wants_json(&["application/problem+json;q=0, application/*"]));
    }
}
