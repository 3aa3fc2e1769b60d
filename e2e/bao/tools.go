//go:build tools

// Package bao exists to pin the server below in this module's go.mod and go.sum;
// it is never compiled. Package remit/e2e/openbao builds the binary.
package bao

import _ "github.com/openbao/openbao"
