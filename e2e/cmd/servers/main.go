// Command servers builds the servers that the tests run against, a Kubernetes
// control plane, an S3 server and OpenBao, if they are not in the cache yet, so that no
// test has to wait for them.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"remit/e2e/cluster"
	"remit/e2e/openbao"
	"remit/e2e/s3"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	binaries, err := cluster.Build(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", binaries)
	gateway, err := s3.Build(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(gateway)
	vault, err := openbao.Build(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(vault)
}
