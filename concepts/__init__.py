"""What CLIP and the captions say about a picture: phrases, vocabulary, embeddings, top-k concepts; all of it sidecars."""
