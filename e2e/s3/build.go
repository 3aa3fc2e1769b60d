//go:build unix

package s3

import (
	"context"

	"remit/e2e/build"
)

// Build returns the path of the server that e2e/versitygw pins, and builds it first
// if that was not done yet.
func Build(ctx context.Context, logf func(format string, args ...any)) (string, error) {
	return build.Program{
		Module: "versitygw", Package: "github.com/versity/versitygw/cmd/versitygw", Title: "the S3 server",
	}.Build(ctx, logf)
}
