// Page answers every request with what its image and its environment say.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	text, err := os.ReadFile("/text")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s\n", text, os.Getenv("MOOD"))
	})))
}
