// Package ewstest is a simulator of Exchange Server's Exchange Web Services, as
// far as a notifier uses them: Subscribe, Unsubscribe, GetStreamingEvents,
// GetFolder, FindFolder, and GetUserSettings of autodiscover.
//
// It is strict where clients are commonly wrong: requests are checked against
// the order of the schema, subscriptions live on the back end that made them,
// NTLM authenticates one connection, and what a client should not have done is
// kept (Violations). It misbehaves on demand, or by a seed, as servers do.
//
// It keeps mail as a flag of being read, has no message, no calendar and no
// rights beyond a list, and binds loopback only.
package ewstest
