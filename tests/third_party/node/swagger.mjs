// Swagger UI in headless Chromium with a client certificate: opens the page, tries operations out, looks for anything that went wrong.
// Reads its orders as JSON from the command line, writes what it saw as one JSON line.
//
//   url, cert, key        the broker, and the client's files
//   chromium, profile     the browser's program and a new, empty directory for it
//   tries                 [{operation, fill, body}]: operation id; parameters by name; the text of the body
//                         after an answer with a Location, the parameters of later tries that are parts of it need not be filled
//   screenshot            where a picture of the page goes, when there is one

import { chromium } from "playwright-core";

const orders = JSON.parse(process.argv[2]);
const origin = new URL(orders.url).origin;
const seen = { title: null, operations: [], answers: [], problems: [] };

const context = await chromium.launchPersistentContext(orders.profile, {
  executablePath: orders.chromium,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
  // The authority of the test broker is nobody's.
  ignoreHTTPSErrors: true,
  clientCertificates: [{ origin, certPath: orders.cert, keyPath: orders.key }],
  viewport: { width: 1400, height: 1800 },
});

/** Tries one operation out and notes its answer. */
async function tryOut(page, { operation, fill = {}, body }) {
  const block = page.locator(`[id$="-${operation}"].opblock`);
  await block.locator(".opblock-summary-control").click();
  await block.locator(".try-out__btn").click();
  for (const [name, value] of Object.entries(fill)) {
    const row = block.locator(`tr[data-param-name="${name}"]`);
    if (!(await row.count())) {
      continue;
    }
    const list = row.locator("select");
    if (await list.count()) {
      await list.selectOption(value);
    } else {
      await row.locator("input").fill(value);
    }
  }
  if (body !== undefined) {
    await block.locator("textarea.body-param__text").fill(body);
  }
  const answered = page.waitForResponse((response) => !response.url().includes("/swagger"));
  await block.locator("button.execute").click();
  const response = await answered;
  const shown = block.locator(".live-responses-table tbody .response-col_status").first();
  await shown.waitFor();
  seen.answers.push({
    operation,
    url: response.url(),
    status: response.status(),
    shown: (await shown.innerText()).split("\n")[0],
    headers: await response.allHeaders(),
    body: await response.text().catch(() => ""),
  });
  return response;
}

try {
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      seen.problems.push(`console: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => seen.problems.push(`script: ${error}`));
  page.on("requestfailed", (request) => seen.problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`));
  page.on("request", (request) => {
    const { protocol } = new URL(request.url());
    if (protocol !== "data:" && new URL(request.url()).origin !== origin) {
      seen.problems.push(`elsewhere: ${request.url()}`);
    }
  });
  await page.goto(`${orders.url}/swagger`);
  await page.locator(".opblock").first().waitFor();
  seen.title = await page.locator(".info .title").innerText();
  seen.operations = await page.locator(".opblock .opblock-summary-path").evaluateAll((paths) => paths.map((path) => path.dataset.path));
  let learnt = {};
  for (const attempt of orders.tries) {
    const response = await tryOut(page, { ...attempt, fill: { ...learnt, ...attempt.fill } });
    const location = (await response.allHeaders()).location;
    if (location) {
      const [bridge, , , group, , instance] = new URL(location).pathname.slice(1).split("/");
      learnt = { bridge, group: decodeURIComponent(group), instance };
    }
  }
  if (orders.screenshot) {
    await page.screenshot({ path: orders.screenshot, fullPage: true });
  }
} finally {
  await context.close();
}
console.log(JSON.stringify(seen));
