//! The documentation of the interface: OpenAPI, and Swagger UI to read it and to try it out.
//!
//! Everybody whose TLS handshake succeeds may read it, also without a certificate and from anywhere: it says nothing that is not
//! published, and who writes or debugs a client needs it before the client is registered. (With `[tls] strict` the handshake
//! needs a good certificate.) What is tried out from the page goes through every check.

use super::wrong_method;
use crate::http::{Headers, Method, Problem, Request, Response, Status};
use std::sync::LazyLock;

/// For everything but the page: nothing of it may run or be shown in another page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
/// For the page: scripts, styles and requests of the broker alone, and the images within its style sheet.
const OWN: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A document by its place in [`DOCUMENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document(usize);

/// A document as it is kept in the program.
struct Content {
    path: &'static str,
    media_type: &'static str,
    policy: &'static str,
    bytes: &'static [u8],
}

/// `/swagger/` is for those who type it so.
static DOCUMENTS: [Content; 9] = [
    Content {
        path: "/openapi.json",
        media_type: "application/json",
        policy: NOTHING,
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json")),
    },
    Content {
        path: "/openapi.yaml",
        media_type: "application/yaml",
        policy: NOTHING,
        bytes: include_bytes!("../../openapi.yaml"),
    },
    Content { path: "/swagger", media_type: HTML, policy: OWN, bytes: PAGE },
    Content { path: "/swagger/", media_type: HTML, policy: OWN, bytes: PAGE },
    Content {
        path: "/swagger/page.js",
        media_type: SCRIPT,
        policy: NOTHING,
        bytes: include_bytes!("documentation/page.js"),
    },
    Content {
        path: "/swagger/page.css",
        media_type: STYLE,
        policy: NOTHING,
        bytes: include_bytes!("documentation/page.css"),
    },
    Content {
        path: "/swagger/swagger-ui-bundle.js",
        media_type: SCRIPT,
        policy: NOTHING,
        bytes: include_bytes!("../../swagger-ui/swagger-ui-bundle.js"),
    },
    Content {
        path: "/swagger/swagger-ui.css",
        media_type: STYLE,
        policy: NOTHING,
        bytes: include_bytes!("../../swagger-ui/swagger-ui.css"),
    },
    Content {
        path: "/swagger/favicon-32x32.png",
        media_type: "image/png",
        policy: NOTHING,
        bytes: include_bytes!("../../swagger-ui/favicon-32x32.png"),
    },
];

const PAGE: &[u8] = include_bytes!("documentation/swagger.html");
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Entity tags of [`DOCUMENTS`]: checksum and length, which differ when the content does.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag =
        |content: &Content| format!("\"{:08x}-{:x}\"", crc32fast::hash(content.bytes), content.bytes.len());
    DOCUMENTS.iter().map(tag).collect()
});

/// Reads all documents once, from the program's file, so that no request has to wait for that.
pub fn read() {
    LazyLock::force(&TAGS);
}

/// The document that the request is for, if it is for one.
pub(super) fn find(request: &Request) -> Option<Result<Document, Problem>> {
    let document = Document::at(&request.path)?;
    Some(match request.method {
        Method::Get | Method::Head => Ok(document),
        _ => Err(wrong_method("GET, HEAD")),
    })
}

impl Document {
    fn at(path: &str) -> Option<Self> {
        DOCUMENTS.iter().position(|content| content.path == path).map(Self)
    }

    /// The document, or only that it has not changed. Browsers ask each time, since a new broker brings new documents.
    pub fn respond_to(self, request: &Headers) -> Response {
        let (content, tag) = (&DOCUMENTS[self.0], TAGS[self.0].as_str());
        let response = match is_known(request, tag) {
            true => Response::new(Status::NOT_MODIFIED),
            false => Response::new(Status::OK).with_body(content.media_type, content.bytes),
        };
        response
            .with_header("ETag", tag)
            .with_header("Cache-Control", "no-cache")
            .with_header("Content-Security-Policy", content.policy)
            .with_header("Referrer-Policy", "no-referrer")
            .with_header("X-Content-Type-Options", "nosniff")
    }
}

/// Whether the client has what the tag names (RFC 9110, 13.1.2: compared weakly).
fn is_known(request: &Headers, tag: &str) -> bool {
    request
        .tokens("if-none-match")
        .any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::polling::Call;
    use super::super::{Endpoint, endpoint_of};
    use super::*;
    use crate::ingress::Form;

    fn get(path: &str, known: &str) -> Response {
        let mut headers = Headers::new();
        headers.push("If-None-Match", known);
        Document::at(path).unwrap().respond_to(&headers)
    }

    #[test]
    fn a_document_that_has_not_changed_is_not_sent_again() {
        let first = get("/swagger", "");
        let tag = first.headers.get_str("etag").unwrap();
        assert_eq!((first.status, &*first.body), (Status::OK, PAGE));
        for known in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let again = get("/swagger", known);
            assert_eq!((again.status, again.body.len()), (Status::NOT_MODIFIED, 0), "{known}");
            assert_eq!(again.headers.get_str("etag"), Some(tag));
        }
        assert_eq!(get("/swagger", "\"other\"").status, Status::OK);
        assert_eq!(get("/openapi.json", tag).status, Status::OK);
    }

    /// A request for an operation of the specification.
    fn request(method: &str, path: &str) -> Request {
        Request {
            method: Method::of(&method.to_uppercase()),
            path: path.replace('{', "x").replace('}', ""),
            query: None,
            headers: Headers::new(),
            body: Vec::new(),
            version: crate::http::Version::Http11,
        }
    }

    /// Method and path of every operation of the specification.
    fn operations() -> Vec<(String, String)> {
        let specification: serde_json::Value = serde_json::from_slice(DOCUMENTS[0].bytes).unwrap();
        let paths = specification["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.clone(), path.clone()))
        });
        operations.collect()
    }

    /// The operation by which the specification names an endpoint. A new endpoint has to be added here too.
    fn operation(endpoint: Endpoint) -> (&'static str, &'static str) {
        match endpoint {
            Endpoint::Produce(Form::Raw) => ("post", "/ce/produce/raw"),
            Endpoint::Produce(Form::Event) => ("post", "/ce/produce/event"),
            Endpoint::Produce(Form::Batch) => ("post", "/ce/produce/events"),
            Endpoint::ProduceTest => ("post", "/ce/tools/consumer/test"),
            Endpoint::ConsumeByWebSocket => ("get", "/ce/consume/ws"),
            Endpoint::MySettings => ("get", "/ce/tools/my-settings"),
            Endpoint::Poll(Call::Open) => ("post", "/ce/consumers"),
            Endpoint::Poll(Call::Delete) => ("delete", "/{bridge}/ce/consumers/{group}/instances/{instance}"),
            Endpoint::Poll(Call::ReadRaw) => {
                ("get", "/{bridge}/ce/consumers/{group}/instances/{instance}/raw")
            }
            Endpoint::Poll(Call::ReadEvent) => {
                ("get", "/{bridge}/ce/consumers/{group}/instances/{instance}/event")
            }
            Endpoint::Poll(Call::ReadEvents) => {
                ("get", "/{bridge}/ce/consumers/{group}/instances/{instance}/events")
            }
            Endpoint::Poll(Call::Confirm) => {
                ("post", "/{bridge}/ce/consumers/{group}/instances/{instance}/confirm")
            }
            Endpoint::Poll(Call::ReportDead) => {
                ("post", "/{bridge}/ce/consumers/{group}/instances/{instance}/dead")
            }
        }
    }

    #[test]
    fn every_endpoint_is_an_operation_of_the_specification() {
        let operations = operations();
        let forms = [Form::Raw, Form::Event, Form::Batch].map(Endpoint::Produce);
        let calls = [
            Call::Open,
            Call::Delete,
            Call::ReadRaw,
            Call::ReadEvent,
            Call::ReadEvents,
            Call::Confirm,
            Call::ReportDead,
        ]
        .map(Endpoint::Poll);
        let others = [Endpoint::ProduceTest, Endpoint::ConsumeByWebSocket, Endpoint::MySettings];
        for endpoint in forms.into_iter().chain(calls).chain(others) {
            let (method, path) = operation(endpoint);
            assert!(operations.contains(&(method.to_owned(), path.to_owned())), "{endpoint:?}");
            assert_eq!(endpoint_of(&request(method, path)), Ok(endpoint));
        }
        for path in ["/swagger", "/openapi.json", "/openapi.yaml"] {
            assert!(operations.contains(&("get".to_owned(), path.to_owned())), "{path}");
        }
    }

    #[test]
    fn every_operation_of_the_specification_is_an_endpoint() {
        for (method, path) in operations() {
            let request = request(&method, &path);
            let known = find(&request).is_some_and(|found| found.is_ok()) || endpoint_of(&request).is_ok();
            assert!(known, "{method} {path}");
        }
    }

    #[test]
    fn every_document_says_what_it_is_and_that_nothing_else_may_be_made_of_it() {
        for content in &DOCUMENTS {
            let response = get(content.path, "");
            assert_eq!(response.headers.get_str("content-type"), Some(content.media_type));
            assert_eq!(response.headers.get_str("x-content-type-options"), Some("nosniff"));
            let policy = response.headers.get_str("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none';") && policy.ends_with("frame-ancestors 'none'"));
        }
    }

    #[test]
    fn the_page_names_nothing_but_documents_of_the_broker() {
        let page = std::str::from_utf8(PAGE).unwrap();
        let links = page.split(['"']).filter(|text| text.starts_with('/') || text.contains("://"));
        let links: Vec<_> = links.collect();
        assert!(links.len() > 4 && links.iter().all(|link| Document::at(link).is_some()), "{links:?}");
    }
}
