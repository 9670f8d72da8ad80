// A mailbox agent with @grpc/grpc-js: streams events, prints each settlement as
// a line of JSON, and leaves when everything it sent has settled.
//
// usage: node client.mjs ADDRESS CA_FILE TOKEN PROTO_DIRECTORY MAILBOX=COUNT...
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const [address, caFile, token, protoDirectory, ...counts] = process.argv.slice(2);

const definition = loader.loadSync('badgerelay/v1/relay.proto', {
  includeDirs: [protoDirectory],
  longs: Number,
  enums: String,
  defaults: true,
});
const { RelayService } = grpc.loadPackageDefinition(definition).badgerelay.v1;

const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${token}`);
const client = new RelayService(address, grpc.credentials.createSsl(readFileSync(caFile)));
const stream = client.stream(metadata);

const events = counts.map((pair) => {
  const at = pair.lastIndexOf('=');
  return { mailbox: pair.slice(0, at), unreadCount: Number(pair.slice(at + 1)) };
});
const unsettled = new Set(events.map((_, i) => i + 1));

stream.on('data', (message) => {
  if (message.welcome) {
    console.log(JSON.stringify({ welcome: message.welcome.maxBatchEvents }));
    stream.write({ batch: { firstSequence: 1, events } });
    return;
  }
  if (!message.settlement) return;
  const { through, ranges, outcomes } = message.settlement;
  for (const sequence of [...unsettled]) {
    if (sequence <= through || ranges.some((r) => r.first <= sequence && sequence <= r.last)) {
      unsettled.delete(sequence);
    }
  }
  console.log(JSON.stringify({ through, ranges, outcomes: outcomes.map((o) => [o.sequence, o.outcome]) }));
  if (unsettled.size === 0) stream.end();
});
stream.on('error', (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
stream.on('end', () => client.close());
stream.write({
  hello: {
    agent: { name: 'interop', product: 'Dovecot', productVersion: '2.3.19' },
    agentId: 'interop', // what its configuration would keep
    instance: new Date().toISOString(), // new at each start, and greater
    number: 1, // of this process's streams
  },
});
