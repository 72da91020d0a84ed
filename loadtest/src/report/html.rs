//! The report, and the comparison of two, as one page that needs nothing else: no script, no font, no address.

use super::chart::{Chart, Named, charts};
use super::compare::{Change, Comparison};
use super::figure::{FIGURES, Figure};
use super::machine::Machine;
use super::model::Report;
use super::targets::Target;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Figures at the top of the page.
const FOREMOST: [&str; 6] = [
    "acknowledged_per_s",
    "acknowledged_p99_ms",
    "consumed_per_s",
    "end_to_end_p99_ms",
    "broker_cpu_us_per_event",
    "broker_pss_peak_mib",
];

/// The page of one report.
pub fn page(report: &Report) -> String {
    let body = html! {
        header {
            h1 { (clean(&report.scenario.name)) }
            p class="soft" { (clean(&report.scenario.summary)) }
            p class="soft" { (clean(&report.started)) ", measured for " (report.seconds) " s, " (clean(&report.broker.url)) }
            (verdict(report))
        }
        (tiles(report))
        @for reservation in report.reservations() { p class="warning" { (reservation) } }
        (targets(&report.targets))
        (figures_of_charts(&[Named { name: "", report }]))
        (groups(report))
        (problems(report))
        h2 { "All figures" }
        (figures(report))
        h2 { "Where it ran" }
        (machine(report))
        @if !report.scenario.text.is_empty() {
            h2 { "Scenario" }
            div class="card" { pre tabindex="0" { (clean(&report.scenario.text)) } }
        }
    };
    document(&report.scenario.name, body)
}

/// The page of two reports, side by side.
pub fn comparison_page(comparison: &Comparison<'_>) -> String {
    let Comparison { before, after, .. } = comparison;
    let body = html! {
        header {
            h1 { (clean(&comparison.title())) }
            @for (name, report) in [("A", before), ("B", after)] {
                p class="soft" { b { (name) } ": " (clean(&report.started)) ", " (clean(&report.scenario.summary)) }
            }
            p class=(if comparison.worst() > 1.0 + comparison.noise { "verdict bad" } else { "verdict good" }) {
                (comparison.summary())
            }
        }
        @for warning in &comparison.warnings { p class="warning" { (clean(warning)) } }
        h2 { "Figures" }
        (compared(comparison))
        (figures_of_charts(&[Named { name: "A", report: before }, Named { name: "B", report: after }]))
    };
    document(&comparison.title(), body)
}

fn document(title: &str, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (clean(title)) " – nistru-loadtest" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// Text without the control characters that HTML forbids; they could come from a scenario or from a broker.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

fn verdict(report: &Report) -> Markup {
    let missed = report.targets.iter().filter(|target| !target.met).count();
    let (class, text) = match () {
        () if !report.is_good() => ("verdict bad", "A promise was broken".to_owned()),
        () if missed == 1 => ("verdict bad", "A target was missed".to_owned()),
        () if missed > 0 => ("verdict bad", format!("{missed} targets were missed")),
        () if !report.problems.is_empty() => ("verdict bad", "Promises kept, with problems".to_owned()),
        () if report.groups.is_empty() => ("verdict good", "Done; nobody consumed".to_owned()),
        () => ("verdict good", "Every acknowledged event arrived, in order".to_owned()),
    };
    html! { p class=(class) { (text) } }
}

fn tiles(report: &Report) -> Markup {
    let shown = FOREMOST.iter().filter_map(|name| {
        let figure = Figure::named(name)?;
        Some((figure, (figure.of)(report)?))
    });
    html! {
        dl class="tiles" {
            @for (figure, value) in shown { div { dt { (figure.label) } dd { (figure.show(value)) } } }
        }
    }
}

fn targets(targets: &[Target]) -> Markup {
    if targets.is_empty() {
        return html! {};
    }
    let head = ["target", "stated", "measured", "verdict"];
    let row = |target: &Target| {
        let figure = Figure::named(&target.figure);
        let show = |value| figure.map_or(format!("{value}"), |figure| figure.show(value));
        let bound = figure.map_or("", Figure::bound);
        html! {
            tr {
                th scope="row" { (figure.map_or(clean(&target.figure), |figure| figure.label.to_owned())) }
                td { (bound) " " (show(target.stated)) }
                td { (target.measured.map_or("not measured".to_owned(), show)) }
                td class=(if target.met { "good" } else { "bad" }) { (if target.met { "met" } else { "missed" }) }
            }
        }
    };
    html! {
        h2 { "Targets" }
        (table(&head, html! { @for target in targets { (row(target)) } }))
    }
}

fn figures_of_charts(reports: &[Named<'_>]) -> Markup {
    html! { @for chart in charts(reports) { (figure(&chart)) } }
}

fn figure(chart: &Chart) -> Markup {
    html! {
        figure {
            figcaption { (chart.plot.title) p { (chart.plot.description) } }
            (chart.plot.svg())
            details {
                summary { "The same numbers as a table" }
                div class="rows" tabindex="0" {
                    table {
                        thead { tr { @for name in &chart.head { th scope="col" { (name) } } } }
                        tbody {
                            @for row in &chart.rows {
                                tr {
                                    @for (index, cell) in row.iter().enumerate() {
                                        @if index == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn groups(report: &Report) -> Markup {
    if report.groups.is_empty() {
        return html! {};
    }
    let head = [
        "group",
        "received",
        "repeated",
        "without a reason",
        "lost",
        "out of order",
        "unexpected",
        "promises",
    ];
    let rows = html! {
        @for group in &report.groups {
            @let verdict = &group.verdict;
            tr {
                th scope="row" { (clean(&group.name)) }
                @for count in [verdict.received, verdict.repeated, verdict.unexcused, verdict.lost, verdict.out_of_order, verdict.unexpected] {
                    td { (count) }
                }
                td class=(if verdict.is_good() { "good" } else { "bad" }) {
                    (if verdict.is_good() { "kept" } else { "broken" })
                }
            }
        }
    };
    html! { h2 { "Consumer groups" } (table(&head, rows)) }
}

fn problems(report: &Report) -> Markup {
    if report.problems.is_empty() {
        return html! {};
    }
    let rows = html! {
        @for (text, count) in &report.problems { tr { th scope="row" { (clean(text)) } td { (count) } } }
    };
    html! { h2 { "Problems" } (table(&["what", "times"], rows)) }
}

fn figures(report: &Report) -> Markup {
    let rows = html! {
        @for figure in FIGURES {
            @if let Some(value) = (figure.of)(report) {
                tr { th scope="row" { (figure.label) } td { (figure.show(value)) } }
            }
        }
        @for (status, events) in &report.refused_by_status {
            tr { th scope="row" { "events refused with " (status) } td { (events) } }
        }
    };
    table(&["figure", "value"], rows)
}

fn machine(report: &Report) -> Markup {
    let Machine { cpu, cores, memory_mib, kernel, filesystem } = &report.machine;
    let broker = &report.broker;
    let place =
        if broker.started { "on this machine, started for the run" } else { "where its address leads" };
    let facts = [
        ("processor", format!("{cpu}, {cores} cores")),
        ("memory", format!("{memory_mib} MiB")),
        ("kernel", kernel.clone()),
        ("file system of the data", filesystem.clone().unwrap_or_default()),
        ("broker", format!("{} {place}", broker.version.as_deref().unwrap_or_default()).trim().to_owned()),
        ("cores of the broker", broker.cores.map_or(String::new(), |cores| cores.to_string())),
        ("processes of the load generator", report.client.processes.to_string()),
    ];
    let known = facts.iter().filter(|(_, value)| !value.is_empty());
    table(
        &["what", ""],
        html! { @for (name, value) in known { tr { th scope="row" { (name) } td { (clean(value)) } } } },
    )
}

fn compared(comparison: &Comparison<'_>) -> Markup {
    let rows = html! {
        @for row in &comparison.rows {
            tr {
                th scope="row" { (row.figure.label) }
                td { (row.show(row.before)) }
                td { (row.show(row.after)) }
                td { (row.ratio_text()) }
                td class=(match row.change { Change::Better => "good", Change::Worse => "bad", _ => "soft" }) {
                    (row.change.word())
                }
            }
        }
    };
    table(&["figure", "A", "B", "B / A", "change"], rows)
}

fn table(head: &[&str], rows: Markup) -> Markup {
    html! {
        div class="card" {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const HOSTILE: &str = "</title><script>alert('x')</script>\u{1}\u{1b}[2J\"'&amp;";

    /// The page's body, which is written so that an XML parser takes it.
    fn body(page: &str) -> roxmltree::Document<'_> {
        let start = page.find("<body>").unwrap();
        let end = page.find("</body>").unwrap() + "</body>".len();
        roxmltree::Document::parse(&page[start..end]).unwrap()
    }

    fn hostile() -> Report {
        let mut report = sample::report(2);
        report.scenario.name = HOSTILE.to_owned();
        report.scenario.text = HOSTILE.to_owned();
        report.scenario.summary = HOSTILE.to_owned();
        report.groups[0].name = HOSTILE.to_owned();
        report.problems.insert(HOSTILE.to_owned(), 1);
        report.machine.cpu = HOSTILE.to_owned();
        report.broker.url = HOSTILE.to_owned();
        report.targets.push(Target { figure: HOSTILE.to_owned(), stated: 1.0, measured: None, met: false });
        report
    }

    fn count(document: &roxmltree::Document<'_>, tag: &str) -> usize {
        document.descendants().filter(|node| node.has_tag_name(tag)).count()
    }

    #[test]
    fn names_from_elsewhere_are_text_and_nothing_else() {
        let report = hostile();
        let pages = [page(&report), comparison_page(&Comparison::of(&report, &sample::report(2), 0.2))];
        for page in &pages {
            assert!(!page.contains("<script") && !page.contains('\u{1b}'));
            let document = body(page);
            let heading = document.descendants().find(|node| node.has_tag_name("h1")).unwrap();
            assert!(heading.text().unwrap().contains("<script>alert('x')</script>"));
        }
    }

    #[test]
    fn a_page_needs_nothing_from_anywhere() {
        let page = page(&sample::report(2));
        for reference in ["src=", "href=", "url(", "@import", "<link", "<script"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn every_plot_has_a_title_and_its_numbers_in_a_table() {
        let page = page(&sample::report(2));
        let document = body(&page);
        assert_eq!(count(&document, "figure"), 3);
        for figure in document.descendants().filter(|node| node.has_tag_name("figure")) {
            let has = |tag: &str| figure.descendants().any(|node| node.has_tag_name(tag));
            assert!(has("title") && has("desc") && has("table") && has("path"));
        }
    }

    #[test]
    fn latencies_that_are_lower_bounds_are_told_before_the_figures() {
        let page = page(&sample::report(2));
        let (told, tiles) = (page.find("1 of 301 latencies are lower bounds"), page.find("<h2>All figures"));
        assert!(told.is_some() && told < tiles);
    }

    #[test]
    fn a_run_in_which_nothing_happened_has_a_page_too() {
        let mut report = sample::report(2);
        report.acknowledged = super::super::Flow::new();
        report.consumed = None;
        report.server = None;
        report.groups.clear();
        let page = page(&report);
        assert!(!page.contains("NaN") && !page.contains("inf"));
        body(&page);
    }
}
