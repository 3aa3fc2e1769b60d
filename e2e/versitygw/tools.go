//go:build tools

// Package versitygw exists to pin the server below in this module's go.mod and
// go.sum; it is never compiled. Package remit/e2e/s3 builds the binary.
package versitygw

import _ "github.com/versity/versitygw/cmd/versitygw"
