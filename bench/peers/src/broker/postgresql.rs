//! PostgreSQL as an event log: one table, and readers that follow transaction and number below the oldest transaction
//! that runs, so that no writer takes a lock and no reader misses a late commit. A committed cursor confirms.

use super::{Access, Broker, Consumer, Producer, READ_MAX};
use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::{Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a reader waits that has found nothing.
const POLL: Duration = Duration::from_millis(2);

const TABLES: &str = "
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY,
        partition int NOT NULL,
        xid bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
        event bytea NOT NULL
    );
    ALTER TABLE events ALTER event SET STORAGE EXTERNAL;
    CREATE INDEX ON events (xid, id);
    CREATE TABLE cursors (first_partition int PRIMARY KEY, xid bigint NOT NULL, id bigint NOT NULL);";

const READ: &str = "
    SELECT xid, id, event FROM events
    WHERE (xid, id) > ($1, $2)
        AND xid < (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
        AND partition = ANY ($3)
    ORDER BY xid, id LIMIT $4";

pub struct Postgresql(pub Access);

impl Postgresql {
    async fn connect(&self) -> Result<Client> {
        let tls = MakeRustlsConnect::new(self.0.tls()?);
        let (client, connection) = tokio_postgres::connect(&self.0.url, tls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

#[async_trait]
impl Broker for Postgresql {
    async fn prepare(&self) -> Result<()> {
        Ok(self.connect().await?.batch_execute(TABLES).await?)
    }

    async fn producer(&self) -> Result<Box<dyn Producer>> {
        let client = self.connect().await?;
        let single = client.prepare("INSERT INTO events (partition, event) VALUES ($1, $2)").await?;
        let several =
            client.prepare("INSERT INTO events (partition, event) SELECT $1, unnest($2::bytea[])").await?;
        Ok(Box::new(PostgresqlProducer { client, single, several }))
    }

    async fn consumer(&self, partitions: Vec<u32>) -> Result<Box<dyn Consumer>> {
        let client = self.connect().await?;
        let partitions: Vec<i32> = partitions.into_iter().map(|partition| partition as i32).collect();
        client.execute("INSERT INTO cursors VALUES ($1, 0, 0)", &[&partitions[0]]).await?;
        let read = client.prepare(READ).await?;
        let confirm =
            client.prepare("UPDATE cursors SET xid = $2, id = $3 WHERE first_partition = $1").await?;
        Ok(Box::new(PostgresqlConsumer { client, read, confirm, partitions, position: (0, 0) }))
    }
}

struct PostgresqlProducer {
    client: Client,
    single: Statement,
    several: Statement,
}

#[async_trait]
impl Producer for PostgresqlProducer {
    async fn send(&mut self, partition: u32, batch: Vec<Bytes>) -> Result<()> {
        let partition = partition as i32;
        let events: Vec<&[u8]> = batch.iter().map(|event| &event[..]).collect();
        match events[..] {
            [event] => self.client.execute(&self.single, &[&partition, &event]).await?,
            _ => self.client.execute(&self.several, &[&partition, &events]).await?,
        };
        Ok(())
    }
}

struct PostgresqlConsumer {
    client: Client,
    read: Statement,
    confirm: Statement,
    partitions: Vec<i32>,
    position: (i64, i64),
}

#[async_trait]
impl Consumer for PostgresqlConsumer {
    async fn receive(&mut self, events: &mut Vec<Bytes>) -> Result<()> {
        let (xid, id) = self.position;
        let rows = self.client.query(&self.read, &[&xid, &id, &self.partitions, &(READ_MAX as i64)]).await?;
        match rows.last() {
            Some(last) => self.position = (last.get(0), last.get(1)),
            None => sleep(POLL).await,
        }
        events.extend(rows.iter().map(|row| Bytes::copy_from_slice(row.get(2))));
        Ok(())
    }

    async fn confirm(&mut self) -> Result<()> {
        let (xid, id) = self.position;
        self.client.execute(&self.confirm, &[&self.partitions[0], &xid, &id]).await?;
        Ok(())
    }
}
