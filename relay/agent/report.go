package agent

import (
	"context"

	"google.golang.org/grpc"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// Mailbox returns what every relay has of a mailbox of the organization, as the
// contract says it: a report is for people, and nothing here decides by it.
func (c *Client) Mailbox(ctx context.Context, mailbox string) (*badgerelayv1.MailboxReport, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn) (*badgerelayv1.GetMailboxResponse, error) {
		return badgerelayv1.NewSubscriptionServiceClient(conn).GetMailbox(ctx, &badgerelayv1.GetMailboxRequest{Mailbox: mailbox})
	})
	return response.GetReport(), err
}
