// Command servers builds the Kubernetes control plane that the tests run
// against, if it is not in the cache yet, so that no test has to wait for it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"remit/e2e/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	binaries, err := cluster.Build(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", binaries)
}
