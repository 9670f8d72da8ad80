// A mailbox agent with @grpc/grpc-js: signs its own token, streams counts, renews
// the token on the open stream, prints each outcome as a line of JSON, and leaves
// when everything has settled.
//
// usage: node agent.mjs RELAY CA_FILE KEY_FILE CERTIFICATE AUDIENCE PROTO_DIRECTORY MAILBOX=COUNT...
import { createHash, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const [relay, caFile, keyFile, certificateFile, audience, protoDirectory, ...counts] = process.argv.slice(2);

const definition = loader.loadSync('badgerelay/v1/relay.proto', {
  includeDirs: [protoDirectory],
  longs: Number,
  enums: String,
  defaults: true,
});
const { RelayService } = grpc.loadPackageDefinition(definition).badgerelay.v1;

const exchange = '00000002-0000-0ff1-ce00-000000000000'; // the principal that calls
const key = readFileSync(keyFile);
const x5t = createHash('sha1').update(readFileSync(certificateFile)).digest('base64url');

function newToken(lifetime = 3600) {
  const realm = audience.slice(audience.lastIndexOf('@') + 1);
  const now = Math.floor(Date.now() / 1000);
  const me = `${exchange}@${realm}`;
  const signed = [
    { alg: 'RS256', typ: 'JWT', x5t },
    { aud: audience, iss: me, nameid: me, nbf: now, exp: now + lifetime },
  ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${signed}.${sign('RSA-SHA256', Buffer.from(signed), key).toString('base64url')}`;
}

const events = counts.map((pair) => {
  const at = pair.lastIndexOf('=');
  return { mailbox: pair.slice(0, at), unreadCount: Number(pair.slice(at + 1)) };
});
const unsettled = new Map(events.map((event, i) => [i + 1, event])); // kept until the relay has settled them

const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${newToken()}`);
const client = new RelayService(relay, grpc.credentials.createSsl(readFileSync(caFile)));
const stream = client.stream(metadata);

stream.on('data', (message) => {
  if (message.welcome) {
    // A daemon does this when a quarter of the lifetime is left.
    stream.write({ freshToken: { token: newToken(7200) } });
  } else if (message.tokenAccepted) {
    console.log(JSON.stringify({ renewed: message.tokenAccepted.tokenExpiresAt.seconds }));
    stream.write({ batch: { firstSequence: 1, events } });
  } else if (message.settlement) {
    settle(message.settlement);
    if (unsettled.size === 0) stream.end();
  }
});

function settle({ through, ranges, outcomes }) {
  const told = new Map(outcomes.map((o) => [o.sequence, o.outcome]));
  for (const [sequence, { mailbox }] of [...unsettled]) {
    if (sequence > through && !ranges.some((r) => r.first <= sequence && sequence <= r.last)) continue;
    unsettled.delete(sequence);
    console.log(JSON.stringify({ mailbox, outcome: told.get(sequence) ?? 'OUTCOME_DELIVERED' }));
  }
}

stream.on('error', (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
stream.on('end', () => client.close());
stream.write({
  hello: {
    agent: { name: 'node', product: 'Dovecot', productVersion: '2.3.19' },
    agentId: 'node', // what its configuration keeps
    instance: new Date().toISOString(), // new at each start, and greater
    number: 1, // of this process's streams
  },
});
