// Command servers builds the servers that the tests run against, a Kubernetes
// control plane and an S3 server, if they are not in the cache yet, so that no test
// has to wait for them. With -openbao it builds OpenBao as well, which takes as long
// as all others together.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"remit/e2e/cluster"
	"remit/e2e/openbao"
	"remit/e2e/s3"
)

func main() {
	bao := flag.Bool("openbao", false, "build OpenBao too")
	flag.Parse()
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
	if !*bao {
		return
	}
	vault, err := openbao.Build(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(vault)
}
