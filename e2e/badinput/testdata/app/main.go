// Program app is an app that does what its variables say: it ends with the code
// in EXIT, or answers with the text in SAY on the port in LISTEN, else PORT.
package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"strconv"
)

func main() {
	if code, err := strconv.Atoi(os.Getenv("EXIT")); err == nil {
		fmt.Fprintln(os.Stderr, "cannot open the database")
		os.Exit(code)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("SAY")) })
	if err := http.ListenAndServe(":"+cmp.Or(os.Getenv("LISTEN"), os.Getenv("PORT")), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
