"""What the review page is made of: its template and texts, the viewer's code, the images and surfaces."""
