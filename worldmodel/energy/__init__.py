"""What scores a forecast: today the model's uncertainty."""
