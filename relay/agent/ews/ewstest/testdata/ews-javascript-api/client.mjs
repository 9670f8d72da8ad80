// Subscribes to the Inbox of each mailbox with the port of Microsoft's own client,
// and prints what it hears, a line of JSON each, until its input ends.
//
//   node client.mjs URL USER PASSWORD MAILBOX...
import ews from "ews-javascript-api";

const [url, user, password, ...mailboxes] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

const service = new ews.ExchangeService(ews.ExchangeVersion.Exchange2013);
service.Url = new ews.Uri(url);
service.Credentials = new ews.WebCredentials(user, password);
service.HttpHeaders.Add("X-AnchorMailbox", mailboxes[0]);
service.HttpHeaders.Add("X-PreferServerAffinity", "true");

const act = (mailbox) => {
  service.ImpersonatedUserId = new ews.ImpersonatedUserId(ews.ConnectingIdType.SmtpAddress, mailbox);
};
const { NewMail, Created, Deleted, Modified, Moved, Copied } = ews.EventType;
const inbox = new ews.FolderId(ews.WellKnownFolderName.Inbox);
const subscriptions = [];
const who = {};
for (const mailbox of mailboxes) {
  act(mailbox);
  const folder = await ews.Folder.Bind(service, inbox, new ews.PropertySet(ews.BasePropertySet.IdOnly, ews.FolderSchema.UnreadCount));
  say({ mailbox, unread: folder.UnreadCount });
  const subscription = await service.SubscribeToStreamingNotifications([inbox], NewMail, Created, Deleted, Modified, Moved, Copied);
  subscriptions.push(subscription);
  who[subscription.Id] = mailbox;
}
act(mailboxes[0]);
const connection = new ews.StreamingSubscriptionConnection(service, subscriptions, 1);
connection.OnNotificationEvent.push((_, args) => {
  for (const event of args.Events) {
    say({
      mailbox: who[args.Subscription.Id], event: ews.EventType[event.EventType],
      folder: event instanceof ews.FolderEvent, unread: event.UnreadCount ?? null,
    });
  }
});
connection.OnSubscriptionError.push((_, args) => say({ mailbox: who[args.Subscription?.Id], error: ews.ServiceError[args.Exception.ErrorCode] }));
connection.OnDisconnect.push(() => say({ disconnected: true }));
connection.Open().catch((err) => say({ failed: String(err) })); // settled when the stream ends
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
