"""What the page of a run is dressed in: `page.css`, and `page.js`, without which it works as well."""
