// Java's own HTTP and WebSocket clients (java.net.http): produces in every form, consumes, confirms, and consumes what is left.
//
//   java Client.java PORT CA CERTIFICATE KEY VERSION
//
// The three files are PEM, VERSION is HTTP_1_1 or HTTP_2. Prints one line for each thing it saw:
//
//   produced STATUS VERSION       an answer to a request that should be taken
//   refused STATUS VERSION TYPE BODY
//   received SESSION MESSAGE
//   closed SESSION CODE REASON    how the broker answered the close of the session

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    static final long PATIENCE_S = 30;

    final String authority;
    final HttpClient http;

    Client(String port, SSLContext tls, HttpClient.Version version) {
        authority = "localhost:" + port;
        http = HttpClient.newBuilder().sslContext(tls).version(version).build();
    }

    public static void main(String[] args) throws Exception {
        SSLContext tls = tls(Path.of(args[1]), Path.of(args[2]), Path.of(args[3]));
        Client client = new Client(args[0], tls, HttpClient.Version.valueOf(args[4]));
        client.produce();
        client.consume("first", 6, 4);
        client.consume("second", 2, 2);
        System.out.flush();
        System.exit(0);
    }

    void produce() throws Exception {
        String structured = "application/cloudevents+json";
        produced(post("/ce/produce/event", structured, BodyPublishers.ofString(event(1, "Ștefan"))));
        // Of unknown length: in chunks over HTTP/1.1.
        byte[] bytes = event(2, "chunked").getBytes(StandardCharsets.UTF_8);
        produced(post("/ce/produce/event", structured, BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes))));
        String batch = "[" + event(3, "a") + "," + event(4, "b") + "," + event(5, "c") + "]";
        produced(post("/ce/produce/events", "application/cloudevents-batch+json", BodyPublishers.ofString(batch)));
        produced(post("/ce/produce/raw", "text/plain", BodyPublishers.ofString("bună ziua"),
                "ce-specversion", "1.0", "ce-id", "6", "ce-source", "urn:demo", "ce-type", "Demo.Load.Blob.Created",
                "ce-partitionkey", "java"));
        HttpResponse<String> refused = post("/ce/produce/event", structured, BodyPublishers.ofString("{}"));
        System.out.println("refused " + refused.statusCode() + " " + refused.version() + " "
                + refused.headers().firstValue("content-type").orElse("").replace(" ", "") + " " + refused.body().replace("\n", " "));
    }

    static String event(int number, String name) {
        return "{\"specversion\":\"1.0\",\"id\":\"" + number + "\",\"source\":\"urn:demo\",\"type\":\"Demo.Load.Record.Created\","
                + "\"partitionkey\":\"java\",\"data\":{\"number\":" + number + ",\"name\":\"" + name + "\"}}";
    }

    HttpResponse<String> post(String path, String type, BodyPublisher body, String... headers) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("https://" + authority + path))
                .header("Content-Type", type).POST(body);
        if (headers.length > 0) {
            request.headers(headers);
        }
        return http.send(request.build(), BodyHandlers.ofString());
    }

    static void produced(HttpResponse<String> response) {
        System.out.println("produced " + response.statusCode() + " " + response.version());
    }

    /** Takes so many messages, confirms up to an offset, and closes. */
    void consume(String session, int take, int confirm) throws Exception {
        Listener listener = new Listener();
        WebSocket socket = http.newWebSocketBuilder().subprotocols("cloudevents.json")
                .buildAsync(URI.create("wss://" + authority + "/ce/consume/ws?group=java"), listener)
                .get(PATIENCE_S, TimeUnit.SECONDS);
        for (int taken = 0; taken < take; taken++) {
            String message = listener.messages.poll(PATIENCE_S, TimeUnit.SECONDS);
            if (message == null) {
                throw new IOException("no message " + taken + " came");
            }
            System.out.println("received " + session + " " + message);
        }
        socket.sendText("confirm:" + confirm, true).get(PATIENCE_S, TimeUnit.SECONDS);
        socket.sendClose(WebSocket.NORMAL_CLOSURE, "done").get(PATIENCE_S, TimeUnit.SECONDS);
        System.out.println("closed " + session + " " + listener.closed.get(PATIENCE_S, TimeUnit.SECONDS));
    }

    static class Listener implements WebSocket.Listener {
        final LinkedBlockingQueue<String> messages = new LinkedBlockingQueue<>();
        final CompletableFuture<String> closed = new CompletableFuture<>();
        final StringBuilder text = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                messages.add(text.toString());
                text.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            closed.complete(code + " " + reason);
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            closed.completeExceptionally(error);
        }
    }

    static SSLContext tls(Path ca, Path certificate, Path key) throws Exception {
        KeyStore trusted = empty();
        trusted.setCertificateEntry("ca", certificates(ca)[0]);
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);

        String pem = Files.readString(key).replaceAll("-----[^-]+-----", "").replaceAll("\\s", "");
        KeyStore own = empty();
        own.setKeyEntry("own", KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem))),
                new char[0], certificates(certificate));
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);

        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return tls;
    }

    static KeyStore empty() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    static Certificate[] certificates(Path pem) throws Exception {
        try (var in = Files.newInputStream(pem)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in).toArray(Certificate[]::new);
        }
    }
}
