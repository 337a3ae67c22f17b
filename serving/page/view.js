// The picture, with the grid of visual tokens over it.

/** The part of a picture that the model's square grid spans, in the picture's pixels; padding may lie outside of it. */
export function spanned(width, height, aspect) {
  if (aspect === "anyres") return { left: 0, top: 0, wide: width, high: height };  // the whole, pressed into a square
  const side = aspect === "pad" ? Math.max(width, height) : Math.min(width, height);
  return { left: (width - side) / 2, top: (height - side) / 2, wide: side, high: side };
}

/** Draw a picture on a canvas, and the grid of so many tokens over it, or none. */
export function draw(canvas, image, aspect, tokens) {
  const { naturalWidth: width, naturalHeight: height } = image;
  const span = spanned(width, height, aspect);
  const left = Math.min(0, span.left), top = Math.min(0, span.top);
  const wide = Math.max(width, span.left + span.wide) - left, high = Math.max(height, span.top + span.high) - top;
  const zoom = 576 / Math.max(wide, high);
  canvas.width = Math.round(wide * zoom);
  canvas.height = Math.round(high * zoom);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = zoom < 1;
  pen.fillStyle = "#80808040";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, -left * zoom, -top * zoom, width * zoom, height * zoom);
  if (!tokens) return;
  const side = Math.round(Math.sqrt(tokens));
  pen.translate((span.left - left) * zoom, (span.top - top) * zoom);
  const [across, down] = [span.wide * zoom, span.high * zoom];
  pen.beginPath();
  for (let i = 0; i <= side; i++) {
    const inset = i === 0 ? 1 : i === side ? -1 : 0;  // the outermost lines would lie half outside
    const x = (i / side) * across + inset, y = (i / side) * down + inset;
    pen.moveTo(x, 0), pen.lineTo(x, down);
    pen.moveTo(0, y), pen.lineTo(across, y);
  }
  for (const [colour, line] of [["#000000a0", 3], ["#ffffffe0", 1]]) {  // seen on any ground
    pen.strokeStyle = colour;
    pen.lineWidth = side > 12 ? line / 2 : line;
    pen.stroke();
  }
}
